"""A fresh node for each scenario, and our table in its host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration.netfilter.node import Node
from userproxy.netfilter.nftables import Nftables

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def node() -> Iterator[Node]:
    """A host, two pods and somebody outside, deleted afterwards."""
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    made = Node(f"nf{os.getpid()}")
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def nftables(node: Node) -> Iterator[Nftables]:
    """Our table in the node's host, set up and without captures."""
    with node.inside("host"):
        made = Nftables()
    with made:
        made.ensure()
        yield made
