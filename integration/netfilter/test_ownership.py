"""Our table is ours alone while its daemon lives, is nobody's afterwards, and goes from one to the next."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETTABLE

from integration.netfilter.conftest import UNKNOWN_FLAG
from integration.netfilter.node import HOST_IP, LISTENER, Node
from integration.netfilter.test_table import (
    CAPTURES,
    EVERYTHING,
    STATE,
    TAMPERING,
    TCP,
    again,
    generation,
)
from userproxy.model.actions import CaptureChange
from userproxy.model.state import Refuse
from userproxy.netfilter import NetfilterError, ownership
from userproxy.netfilter.cleanup import cleanup
from userproxy.netfilter.kernel import Kernel
from userproxy.netfilter.wire.netlink import NFT_SUBSYSTEM, NFTABLES_HEADER, NLM_F_REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.netfilter.nftables import Nftables
    from userproxy.netfilter.wire.netlink import Message

FLUSH = "flush ruleset"
UNANSWERED = (
    struct.pack("=IHHII", 20, NFT_SUBSYSTEM | NFT_MSG_GETTABLE, NLM_F_REQUEST, 1, 0) + NFTABLES_HEADER
)
"""A question that the kernel refuses, as it names no table; whoever has asked ends before it reads that."""


@pytest.fixture
def kernel(node: Node) -> Iterator[Kernel]:
    """All of ours in the node's host, of a daemon that has just started."""
    with node.inside("host"), Kernel([HOST_IP]) as made:
        asyncio.run(made.start())
        yield made


def refused(node: Node, command: str) -> bool:
    """Whether the kernel does not let somebody else do this."""
    program = ("ip", "netns", "exec", node.names["host"], "nft", command)
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode != 0 and "Operation not permitted" in done.stderr


def test_nobody_else_can_change_it(node: Node, nftables: Nftables) -> None:
    nftables.apply(EVERYTHING)
    before = node.run("host", "nft", "-a", "list", "ruleset")
    assert {command for command in TAMPERING.values() if not refused(node, command)} == {FLUSH}
    assert node.run("host", "nft", "-a", "list", "ruleset") == before, "not one handle changed"
    assert nftables.owned
    assert nftables.verify() == ()
    node.run("host", "nft", f"{FLUSH}; add table ip someone")
    assert nftables.verify() == ()
    assert nftables.ensure() == STATE


@pytest.mark.usefixtures("older_kernel")
def test_a_kernel_that_knows_no_such_table_makes_one_that_anybody_can_change(
    node: Node, nftables: Nftables
) -> None:
    nftables.apply(EVERYTHING)
    assert not nftables.owned
    assert nftables.missing_kernel_features() == ()
    with again(node) as successor:
        assert successor.ensure() == STATE
    node.run("host", "nft", FLUSH)
    assert nftables.verify() == ("table userproxy is missing",)
    assert nftables.ensure() == STATE


def test_it_stays_when_its_daemon_has_died_and_the_next_one_owns_it(node: Node, nftables: Nftables) -> None:
    nftables.apply(EVERYTHING)
    with node.serving("host", LISTENER, "proxy"), node.connect("server1") as connection:
        assert connection.recv(100)
        nftables.close()
        assert node.ask("server1").startswith("proxy ")
        with again(node) as successor:
            assert successor.ensure() == STATE
            assert refused(node, "delete table inet userproxy")
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"


def test_an_orphan_that_somebody_has_deleted_is_made_anew(node: Node, nftables: Nftables) -> None:
    nftables.close()
    node.run("host", "nft", "delete table inet userproxy")
    with again(node) as successor:
        successor.ensure()
        assert refused(node, "delete table inet userproxy")


def test_an_intact_table_without_an_owner_is_replaced_in_one_transaction(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, again(node) as older:
        patch.setattr(ownership, "OWNED", ownership.OWNED | UNKNOWN_FLAG)
        older.ensure()
        older.apply(CaptureChange(put=CAPTURES))
        assert not older.owned
    before = generation(node)
    with node.serving("host", LISTENER, "proxy"), node.connect("server1") as connection:
        assert connection.recv(100)
        with again(node) as successor:
            assert successor.ensure().captures == CAPTURES
            assert generation(node) == before + 1
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"
            assert refused(node, "delete table inet userproxy")


def test_while_one_daemon_has_it_another_one_is_told_so(node: Node, kernel: Kernel) -> None:
    asyncio.run(kernel.apply(CaptureChange(put={TCP: Refuse()})))
    with node.inside("host"), Kernel([HOST_IP]) as other:
        assert other.missing_features() == (), "what that one does, the kernel can"
        with pytest.raises(NetfilterError, match="stop the userproxy that has it"):
            asyncio.run(other.start())
        with pytest.raises(NetfilterError, match="stop the userproxy that has it"):
            cleanup()
    assert asyncio.run(kernel.repair()) == ()


def test_the_socket_goes_to_the_next_program_and_the_table_is_nobody_s_for_no_moment(
    node: Node, kernel: Kernel
) -> None:
    asyncio.run(kernel.apply(CaptureChange(put=CAPTURES)))
    owner = asyncio.run(kernel.give())
    assert owner is not None
    left = os.dup(owner.fileno())
    owner.send(UNANSWERED)
    before = generation(node)
    owner.close()
    assert refused(node, "delete table inet userproxy")
    with node.inside("host"), Kernel([HOST_IP]) as heir:
        heir.inherit(socket.socket(fileno=left))
        assert heir.missing_features() == ()
        assert asyncio.run(heir.start()).captures == CAPTURES
        assert generation(node) == before, "untouched"
        asyncio.run(heir.apply(CaptureChange(put={TCP: Refuse()})))
        assert asyncio.run(heir.repair()) == ()


def test_the_socket_is_given_once_nobody_reads_from_it_any_more(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = kernel._nftables._socket  # noqa: SLF001 - the kernel takes its time
    asked, answered = threading.Event(), threading.Event()
    dump = connection.dump

    def slow(message: Message) -> list[bytes]:
        asked.set()
        assert answered.wait(30)
        return dump(message)

    async def ask_and_end() -> None:
        asking = asyncio.create_task(kernel.alive())
        await asyncio.to_thread(asked.wait, 30)
        asking.cancel()
        giving = asyncio.create_task(kernel.give())
        done, _ = await asyncio.wait([asking, giving], timeout=0.2)
        answered.set()
        assert done == {asking}, "whose thread would read what the kernel answers the next owner"
        assert await giving is connection.raw

    monkeypatch.setattr(connection, "dump", slow)
    asyncio.run(ask_and_end())


def test_cleanup_removes_an_orphan(node: Node, nftables: Nftables) -> None:
    nftables.close()
    with node.inside("host"):
        assert "nftables table inet userproxy" in cleanup()
        assert cleanup() == ()


def test_a_change_of_which_no_answer_came_is_looked_for_though_nobody_else_can_have_made_it(
    nftables: Nftables, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = nftables._socket  # noqa: SLF001 - the kernel answers late
    batch = connection.batch

    def unanswered(messages: Sequence[Message], *, commit: bool = True) -> None:
        batch(messages, commit=commit)
        raise TimeoutError(errno.ETIMEDOUT, "no answer")

    monkeypatch.setattr(connection, "batch", unanswered)
    with pytest.raises(NetfilterError):
        nftables.apply(CaptureChange(put={TCP: Refuse()}))
    monkeypatch.setattr(connection, "batch", batch)
    assert nftables.verify() == (
        "checked4 has elements that are not ours",
        "refused4 has elements that are not ours",
    )
    assert nftables.ensure().captures == {}
    assert nftables.verify() == ()
