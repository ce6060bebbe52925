"""Ending connections that the kernel carries, both ends of each."""

from __future__ import annotations

import contextlib
import errno
import random
import time
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.service import Protocol
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.conntrack.flows import flow_of
from userproxy.netfilter.ending.probes import Flags, Segment
from userproxy.netfilter.ending.rules import CLIENT, POD, WHOLE, key_of
from userproxy.netfilter.ending.sender import Sender
from userproxy.netfilter.ending.table import EndingTable, Ends
from userproxy.netfilter.wire.netlink import RefusedError, Socket

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from userproxy.netfilter.conntrack.flows import Flow

_AT_ONCE = 4000
_ROUNDS = ((0.0, True), (0.05, False), (0.55, True), (0.65, False), (1.2, True), (1.3, False), (1.8, False))
"""When probes are sent at the earliest, in seconds, and whether these are SYNs: an end answers one in half a
second, and one that is gone answers each."""
_HEARD_SECONDS = 0.03
"""After which the answers to a round are there, mostly."""
_QUIET_ROUNDS = 3
"""After so many, who has been sent a reset is taken to be gone, although he does not say so."""


class Ended(msgspec.Struct, frozen=True):
    """What has become of connections.

    Attributes:
        ended: their numbers (`Flow.id`): both ends have been reset, or nothing is left of it.
        halves: one end has been reset; the other one did not speak, and will be reset when it does.
        untouched: neither end has spoken, and they go on.
        problem: why that may be; empty if nothing is known.
    """

    ended: frozenset[int] = frozenset()
    halves: frozenset[int] = frozenset()
    untouched: frozenset[int] = frozenset()
    problem: str = ""

    def __or__(self, other: Ended) -> Ended:
        return Ended(
            self.ended | other.ended,
            self.halves | other.halves,
            self.untouched | other.untouched,
            self.problem or other.problem,
        )


def end(flows: Collection[Flow]) -> Ended:
    """End these connections: both ends get a reset, within two seconds where there are few thousands.

    A UDP flow is forgotten, and so is a connection that is just being opened: where it leads is chosen anew.
    A connection that has ended meanwhile, and another one in its place, are left alone.
    Blocks; for any thread, one at a time.

    Raises:
        NetfilterError: the kernel refuses; some may have been ended.
    """
    established = [each for each in flows if _is_established(each)]
    others = [each for each in flows if not _is_established(each)]
    done = Ended(frozenset(each.id for each in others))
    try:
        with contextlib.closing(Socket(entry.NETLINK_NETFILTER)) as conntrack, Sender() as sender:
            _forget(others, conntrack)
            for first in range(0, len(established), _AT_ONCE):
                done |= _end(established[first : first + _AT_ONCE], sender, conntrack)
    except (RefusedError, OSError) as error:
        raise NetfilterError(f"cannot end connections that the kernel carries: {error}") from error
    return done


def probes_of(flows: Iterable[Flow], waiting: Collection[bytes], *, opening: bool) -> Iterator[Segment]:
    """What has the ends speak that are waited for, each in the name of the other one.

    Args:
        flows: the connections.
        waiting: ends of these.
        opening: by a SYN, else by an ACK.
    """
    for flow in flows:
        ends = (
            (CLIENT, flow.frontend.address, flow.client, Flags.SYN | Flags.ACK),
            (POD, flow.source, flow.backend, Flags.SYN),
        )
        for number, source, destination, syn in ends:
            if key_of(flow, number) in waiting:
                sequence, acknowledged = random.getrandbits(32), random.getrandbits(32)
                yield Segment(source, destination, syn if opening else Flags.ACK, sequence, acknowledged)


def judged(flows: Iterable[Flow], ends: Ends) -> Ended:
    """What has become of connections whose ends are as that."""
    by_ends: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    for flow in flows:
        keys = [key_of(flow, end) for end in (CLIENT, POD)]
        reached = sum(key not in ends.ending or key in ends.struck for key in keys)
        by_ends[reached].add(flow.id)
    untouched, halves, ended = map(frozenset, by_ends)
    return Ended(ended, halves, untouched)


def _end(flows: Collection[Flow], sender: Sender, conntrack: Socket) -> Ended:
    with EndingTable() as table:
        table.end(flows)
        ends = _provoke(flows, sender, table)
        done = judged(flows, ends)
        # What has taken the place of one has no element any more.
        reached = [
            each for each in flows if each.id not in done.untouched and key_of(each, WHOLE) in ends.ending
        ]
        _forget(reached, conntrack)
    unheard = (each for each in flows if each.id in done.untouched)
    untouched = frozenset(each.id for each in unheard if _is_there(each, conntrack))
    return Ended(done.ended | done.untouched - untouched, done.halves, untouched, sender.lacking)


def _provoke(flows: Collection[Flow], sender: Sender, table: EndingTable) -> Ends:
    """Have the ends speak again and again, until all are gone or the time is over."""
    began = time.monotonic()
    keys = {key_of(flow, end) for flow in flows for end in (CLIENT, POD)}
    ends = table.look()
    for number, (earliest, opening) in enumerate(_ROUNDS):
        waiting = keys & ends.ending
        if not waiting or (number >= _QUIET_ROUNDS and waiting <= ends.struck):
            break
        time.sleep(max(0.0, began + earliest - time.monotonic()))
        sender.send(probes_of(flows, waiting, opening=opening))
        time.sleep(_HEARD_SECONDS)
        ends = table.look()
    return ends


def _forget(flows: Collection[Flow], conntrack: Socket) -> None:
    """Delete the entries of these connections, and of no others that have taken their places."""
    for refusal in conntrack.request([entry.end_of(_original(each), each.id) for each in flows]):
        if refusal.errno != errno.ENOENT:  # it is gone
            raise RefusedError(refusal, "conntrack entry")


def _is_there(flow: Flow, conntrack: Socket) -> bool:
    """Whether the connection is not over by itself."""
    try:
        found = flow_of(conntrack.get(entry.lookup(_original(flow))), {})
    except RefusedError as error:
        if error.refusal.errno == errno.ENOENT:
            return False
        raise
    return found is not None and found.id == flow.id


def _original(flow: Flow) -> entry.Direction:
    return entry.Direction(flow.frontend.protocol, flow.client, flow.frontend.address)


def _is_established(flow: Flow) -> bool:
    return flow.frontend.protocol is Protocol.TCP and flow.state != "connecting"
