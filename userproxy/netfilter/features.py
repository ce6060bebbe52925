"""What of our rules not every kernel has. It is asked to check some, and changes nothing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.language import Chain, Queue, Rule
from userproxy.netfilter.ruleset.vacancy import LANDING
from userproxy.netfilter.wire import encode
from userproxy.netfilter.wire.netlink import RefusedError, string

if TYPE_CHECKING:
    from userproxy.netfilter.wire.netlink import Message, Socket
    from userproxy.netfilter.wire.read_back import Static

_QUEUE, _QUEUE_TARGET = string("queue"), string("target")
_LACKING = (errno.ENOENT, errno.EOPNOTSUPP)
_PROBE = "probe"


class Features(NamedTuple):
    """Of a kernel.

    Attributes:
        quick: it has what `ruleset.vacancy` needs.
        queues: packets can wait for a program to answer for them.
        as_target: they can in the words of iptables alone.
    """

    quick: bool
    queues: bool
    as_target: bool


def features_shown(static: Static) -> Features | None:
    """What our table shows of them; None if it has no queue, and the kernel can be asked.

    It must not be asked while packets wait: all that do in the namespace are dropped when a hook or a timeout
    goes, be it one of a transaction that was only checked (net/netfilter/nf_queue.c: nf_queue_nf_hook_drop).
    """
    used = {name for rules in static.rules.values() for rule in rules for name, _ in rule}
    if not used & {_QUEUE, _QUEUE_TARGET}:
        return None
    return Features(LANDING in static.chains, queues=True, as_target=_QUEUE_TARGET in used)


def features_of(socket: Socket, flags: int) -> Features:
    """Ask the kernel, while the table is ours or nobody's. May raise what the socket does.

    Args:
        socket: that owns the table, if there is one.
        flags: that the table is made with.
    """
    quick = _has(socket, [encode.delete_table(), *encode.creation(ruleset(), flags)])
    native = _has(socket, _queueing(as_target=False))
    as_target = not native and _has(socket, _queueing(as_target=True))
    return Features(quick, native or as_target, as_target)


def _has(socket: Socket, messages: list[Message]) -> bool:
    try:
        socket.batch([encode.table(), *messages], commit=False)
    except RefusedError as error:
        if error.refusal.errno not in _LACKING:
            raise
        return False  # or it lacks something else, and then refuses the rest too
    return True


def _queueing(*, as_target: bool) -> list[Message]:
    return encode.chains([Chain(_PROBE, (Rule((), Queue(0, 1, as_target=as_target)),))])
