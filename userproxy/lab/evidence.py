"""What the kernel says of a lab: the translations it made, the addresses it has, and what is left of it."""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
from pyroute2 import Conntrack, netns
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from userproxy.lab import network, processes
from userproxy.model.address import Address
from userproxy.model.service import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.lab.deployment import Lab


_ID_SEQUENCE = 7
"""The column of a queue's last packet id, which count from 1 (nfnetlink_queue.c: seq_show)."""

_PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}


class Translation(msgspec.Struct, frozen=True):
    """A connection in conntrack, or a UDP flow, whose destination netfilter has rewritten.

    Attributes:
        client: who opened it.
        original: the destination that it was sent to.
        actual: who it is that answers.
    """

    client: Address
    original: Address
    actual: Address


def translations(
    namespace: str, client: str, frontend: Address, protocol: Protocol = Protocol.TCP
) -> list[Translation]:
    """The connections from a client's IP to a frontend, out of the conntrack table of a namespace."""
    proto = _PROTOCOLS[protocol]
    wanted = NFCTAttrTuple(saddr=client, daddr=frontend.ip, proto=proto, dport=frontend.port)

    def dump() -> list[Translation]:
        netns.setns(namespace, flags=0)
        with Conntrack() as conntrack:
            return [_translation(entry) for entry in conntrack.dump_entries(tuple_orig=wanted)]

    # A thread that enters the namespace and ends there. Conntrack(netns=...) would fork for it, and its
    # child inherits our signal handlers and open contexts: told to end, it would take the lab down.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(dump).result()


def queued(namespace: str) -> int:
    """How many packets netfilter queues of a namespace have been given so far: those that asked userspace.

    Raises:
        subprocess.CalledProcessError: the namespace is not there.
    """
    argv = ["ip", "netns", "exec", namespace, "cat", "/proc/net/netfilter/nfnetlink_queue"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)  # noqa: S603 - our own argv
    return sum(int(line.split()[_ID_SEQUENCE]) for line in shown.stdout.splitlines())


def holders(namespaces: Iterable[str], ip: str) -> list[str]:
    """Which of these namespaces have an interface with that IP address."""
    return [name for name in namespaces if ip in _addresses(name)]


class Machine:
    """The machine around a lab: seen before it comes up, compared after it went down."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._before = network.fingerprint()
        self._pids: dict[int, int | None] = {}

    def note_processes(self) -> int:
        """Remember what runs in the lab now, to look for it later; returns how many these are."""
        running = processes.running_in(self._lab.namespaces)
        self._pids |= {pid: processes.started_at(pid) for pid in running}
        return len(running)

    def left_overs(self) -> dict[str, str]:
        """What is still there or has changed, by kind; each text is empty if there is nothing."""
        after = network.fingerprint()
        changed = [kind for kind, text in self._before.items() if after[kind] != text]
        alive = [pid for pid, start in self._pids.items() if start and processes.started_at(pid) == start]
        return {
            "no namespace is left": ", ".join(network.existing(self._lab.namespaces)),
            "no process is left": ", ".join(map(str, alive)),
            "no file is left": str(self._lab.directory) if self._lab.directory.exists() else "",
            f"the machine's own {', '.join(self._before)} are as before": ", ".join(changed),
        }


def _translation(entry: Any) -> Translation:  # noqa: ANN401 - pyroute2 is untyped
    original, reply = entry.tuple_orig, entry.tuple_reply
    return Translation(
        client=Address(original.saddr, original.sport),
        original=Address(original.daddr, original.dport),
        actual=Address(reply.saddr, reply.sport),
    )


def _addresses(namespace: str) -> set[str]:
    argv = ["ip", "-netns", namespace, "-brief", "-4", "address"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)  # noqa: S603 - our own argv
    return {field.partition("/")[0] for line in shown.stdout.splitlines() for field in line.split()[2:]}
