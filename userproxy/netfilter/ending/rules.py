"""The rules that end connections: a table of their own, which is there only while some are being ended.

An end is named by its connection, by the kernel's own number and the ports, and by the direction in which it
sends. What it sends is answered with a reset, which therefore has the sequence number that it expects. From
who is gone comes a reset, and is noted. A client that comes again from the same port has to ask twice, as
conntrack would take its SYN for one of the old connection. A new one that has the number of an old one is
left alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from userproxy.model.probing import PROBE_BITS, PROBE_MARK
from userproxy.netfilter.elements.element import Element
from userproxy.netfilter.ending.probes import Flags
from userproxy.netfilter.ruleset.chains import DENY_PRIORITY, HEART_PRIORITY, STATE_ESTABLISHED, STATE_NEW
from userproxy.netfilter.ruleset.language import (
    TABLE,
    TCP,
    Chain,
    Constant,
    Datatype,
    Equals,
    Erase,
    Field,
    Goto,
    HasAny,
    Hook,
    In,
    Masked,
    Note,
    Rule,
    Ruleset,
    Set,
    Simple,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from userproxy.netfilter.conntrack.flows import Flow

ENDING_TABLE = f"{TABLE}-ending"

CLIENT, POD, WHOLE = range(3)
"""The ends of a connection: who opened it sends in its original direction, the pod in the other one. `WHOLE`
is neither, but there for as long as the connection is the one that was meant."""

FORGOTTEN_SECONDS = 30
MOST = 65_536

_KEY = (Datatype.MARK, Datatype.INET_SERVICE, Datatype.INET_SERVICE, Datatype.CT_DIR)
ENDING = Set("ending", _KEY, fades=FORGOTTEN_SECONDS, most=MOST)
"""Whoever is to be reset, until a reset of its own says that it is gone."""
STRUCK = Set("struck", _KEY, fades=FORGOTTEN_SECONDS, most=MOST)
"""Whoever has been sent a reset."""

_CONNECTION = (Field.CONNECTION, Field.ORIGINAL_SOURCE_PORT, Field.ORIGINAL_PORT)
_END = (*_CONNECTION, Field.DIRECTION)
_ECN = 0xC0
"""Beside a SYN, of who asks for congestion notification."""
_ENDED, _RENEWED = "ended", "renewed"


def key_of(flow: Flow, end: int) -> bytes:
    """Of an end, as the kernel has it."""
    client, frontend = flow.client.port, flow.frontend.address.port
    ports = b"".join(port.to_bytes(2, "big") + bytes(2) for port in (client, frontend))
    return flow.id.to_bytes(4, "big") + ports + bytes([end, 0, 0, 0])


def elements_of(flows: Iterable[Flow]) -> Iterator[Element]:
    """That these connections are to be ended."""
    return (Element(ENDING.name, key_of(flow, end)) for flow in flows for end in (CLIENT, POD, WHOLE))


def ending_ruleset() -> Ruleset:
    """The table, without elements."""
    tcp = Equals(Field.PROTOCOL, TCP)
    probe = Rule((Masked(Field.MARK, PROBE_BITS, PROBE_MARK), tcp), Simple.UNTRACKED)
    # A reset that answers a packet is related to the connection: so it is not taken for one of an end's.
    lives = HasAny(Field.STATE, STATE_ESTABLISHED)
    rules = (
        Rule((tcp, HasAny(Field.STATE, STATE_NEW), In(_in(WHOLE), ENDING.name)), Goto(_RENEWED)),
        Rule((tcp, lives, In(_END, ENDING.name)), Goto(_ENDED)),
    )
    hooks = (
        Chain(f"ending-{point}", rules, Hook("filter", point, _PRIORITY))
        for point in ("prerouting", "output")
    )
    unseen = Chain("unseen-output", (probe,), Hook("filter", "output", HEART_PRIORITY))
    return Ruleset((ENDING, STRUCK), (_ended(), _renewed(), unseen, *hooks), table=ENDING_TABLE)


_PRIORITY = DENY_PRIORITY - 1
"""Behind conntrack, and before anything is translated: the reset has the addresses that its receiver knows,
also on a bridge, where the kernel sends it past all further hooks."""


def _ended() -> Chain:
    gone = Erase(_END, ENDING.name)
    tcp = Equals(Field.PROTOCOL, TCP)
    resets = (Equals(Field.TCP_FLAGS, flags) for flags in (Flags.RST, Flags.RST | Flags.ACK))
    openings = (Equals(Field.TCP_FLAGS, flags) for flags in (Flags.SYN, Flags.SYN | _ECN))
    return Chain(
        _ENDED,
        (
            *(Rule((tcp, reset, gone), Simple.DROP) for reset in resets),
            *(Rule((tcp, opening), Simple.DROP) for opening in openings),
            Rule((Note(_END, STRUCK.name),), Simple.RESET),
        ),
    )


def _renewed() -> Chain:
    erased = tuple(Erase(_in(end), ENDING.name) for end in (CLIENT, POD, WHOLE))
    return Chain(_RENEWED, (Rule(erased, Simple.CONTINUE),))


def _in(end: int) -> tuple[Field | Constant, ...]:
    """The key of a packet's connection with this end, whichever sent it."""
    return (*_CONNECTION, Constant(int.from_bytes(bytes([end, 0, 0, 0]), sys.byteorder)))
