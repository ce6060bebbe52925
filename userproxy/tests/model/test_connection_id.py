"""The names of relayed connections."""

from __future__ import annotations

import pytest

from userproxy.model.connection_id import ConnectionId


def test_a_name_is_read_as_it_is_written() -> None:
    assert ConnectionId.parse(str(ConnectionId(18253, 4))) == ConnectionId(18253, 4)


@pytest.mark.parametrize(
    "text", ["", "4", "-4", "4-", "1-2-3", "ct-4", "1-x", "²-1", "1-" + "9" * 40, "1 -2", "+1-2"]
)
def test_what_is_no_name_is_none(text: str) -> None:
    assert ConnectionId.parse(text) is None
