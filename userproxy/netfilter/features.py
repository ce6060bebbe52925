"""What of our rules not every kernel has. It is asked to check some, and changes nothing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.language import Chain, Queue, Rule
from userproxy.netfilter.ruleset.made import Limit
from userproxy.netfilter.ruleset.sets import FAMILIES
from userproxy.netfilter.ruleset.vacancy import LANDING
from userproxy.netfilter.wire import encode
from userproxy.netfilter.wire.netlink import RefusedError, string
from userproxy.netfilter.wire.read_back import read_static

if TYPE_CHECKING:
    from userproxy.netfilter.ruleset.made import Made
    from userproxy.netfilter.wire.netlink import Message, Socket
    from userproxy.netfilter.wire.read_back import Static

_QUEUE, _TARGET = string("queue"), string("target")
_LIMIT = Limit(1, 1)
_COUNTED = {each.name for family in FAMILIES for each in (family.counted, family.counted_clients)}
_LACKING = (errno.ENOENT, errno.EOPNOTSUPP)
_PROBE = "probe"


class Features(NamedTuple):
    """Of a kernel.

    Attributes:
        quick: it has what `ruleset.vacancy` needs.
        queues: packets can wait for a program to answer for them.
        as_target: they can in the words of iptables alone.
        limits: connections can be counted, and refused by their number.
    """

    quick: bool
    queues: bool
    as_target: bool
    limits: bool


def is_asking(static: Static) -> bool:
    """Whether our table has a queue, so that packets may be waiting.

    The kernel drops all that do in the namespace when a hook or a conntrack timeout goes, be it one of a
    transaction that was only checked (net/netfilter/nf_queue.c: nf_queue_nf_hook_drop).
    """
    return bool(_used(static) & {_QUEUE, _TARGET})


def is_asking_by_target(static: Static) -> bool:
    """Whether it has one in the words of iptables."""
    return _TARGET in _used(static)


def features_of(socket: Socket, flags: int) -> Features:
    """Ask the kernel, while the table is ours or nobody's. May raise what the socket does.

    Args:
        socket: that owns the table, if there is one.
        flags: that the table is made with.
    """
    static = read_static(socket)
    if is_asking(static) and static.sets.keys() >= _COUNTED:
        limits = _has(socket, encode.chains([_LIMIT.chain]))
        quick, as_target = LANDING in static.chains, is_asking_by_target(static)
        return Features(quick, queues=True, as_target=as_target, limits=limits)
    quick = _has(socket, _anew(flags))
    native = _has(socket, _queueing(as_target=False))
    as_target = not native and _has(socket, _queueing(as_target=True))
    limits = _has(socket, _anew(flags, _LIMIT, quick=quick))
    return Features(quick, native or as_target, as_target, limits)


def _used(static: Static) -> set[bytes]:
    """The kinds of expressions."""
    return {name for rules in static.rules.values() for rule in rules for name, _ in rule}


def _has(socket: Socket, messages: list[Message]) -> bool:
    try:
        socket.batch([encode.table(), *messages], commit=False)
    except RefusedError as error:
        if error.refusal.errno not in _LACKING:
            raise
        return False  # or it lacks something else, and then refuses the rest too
    return True


def _anew(flags: int, *made: Made, quick: bool = True) -> list[Message]:
    return [encode.delete_table(), *encode.creation(ruleset(frozenset(made), quick=quick), flags)]


def _queueing(*, as_target: bool) -> list[Message]:
    return encode.chains([Chain(_PROBE, (Rule((), Queue(0, 1, as_target=as_target)),))])
