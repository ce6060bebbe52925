"""Whoever lists the rules sees whose they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab


def test_each_service_is_named_beside_its_address(lab: Lab) -> None:
    for name in ("listeners4", "sizes4"):
        listed = lab.exec("host1", "nft", "list", "map", "inet", "userproxy", name).stdout
        frontend = rf"{re.escape(SERVER_SERVICE.ip)} \. tcp \. 80"
        assert re.search(rf'{frontend} comment "{re.escape(str(SERVER_SERVICE.port_names[0]))}" :', listed), (
            listed
        )
