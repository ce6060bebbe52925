"""What a test of this folder says of IPv4 holds of IPv6 too: each runs once for either."""

from __future__ import annotations

import pytest

from userproxy.netfilter.ruleset.sets import IPV4, IPV6
from userproxy.tests.netfilter.ruleset import tracer


@pytest.fixture(autouse=True, params=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family of the packets; a test goes on speaking of their IPv4 twins."""
    monkeypatch.setattr(tracer, "FAMILY", IPV6 if request.param == "IPv6" else IPV4)
