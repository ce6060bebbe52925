"""A fresh node for each scenario, and our table in its host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration.netfilter.node import Nftables6, Node, Node6
from userproxy.netfilter import ownership
from userproxy.netfilter.nftables import Nftables

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN_FLAG = 0x8000
"""Of a table: no kernel knows it so far."""


@pytest.fixture
def family(request: pytest.FixtureRequest) -> str:
    """`IPv4`, unless the scenario holds in `BOTH_FAMILIES`."""
    return str(getattr(request, "param", "IPv4"))


@pytest.fixture
def node(family: str) -> Iterator[Node]:
    """A host, two pods and somebody outside, deleted afterwards."""
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    made = (Node6 if family == "IPv6" else Node)(f"nf{os.getpid()}")
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that refuses to make our table as an owned one: it is asked for what none knows so far."""
    monkeypatch.setattr(ownership, "OWNED", ownership.OWNED | UNKNOWN_FLAG)


@pytest.fixture
def nftables(node: Node, family: str) -> Iterator[Nftables]:
    """Our table in the node's host, set up and without captures."""
    with node.inside("host"):
        made = Nftables6() if family == "IPv6" else Nftables()
    with made:
        made.ensure()
        yield made
