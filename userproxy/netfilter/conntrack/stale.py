"""Forgetting flows.

A flow keeps the translation of its first packet for as long as its client keeps sending. Whoever changes
where a UDP frontend leads, or removes it, has the flows forgotten that lead elsewhere, or old clients stay
with what is gone. TCP connections end by themselves and are left alone, but for two kinds:

- Those to a listener whose address the node has lost: their packets would go on to nowhere, and so their
  clients would wait for long. Forgotten, they get to a listener that does not know them, and are reset.
- Those to a frontend from before it was captured, which nobody has answered: for two minutes the client's
  next SYN would go out as the first one did, and so would that of whoever gets the same port meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from userproxy.model.service import Protocol
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.wire.netlink import RefusedError, Socket

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from userproxy.model.address import Address
    from userproxy.model.state import Frontend
    from userproxy.netfilter.wire.netlink import Message

SINGLE_DUMPS = 8
"""Up to so many frontends the kernel is asked for each one's flows; for more, for all of the protocol."""

_Stale = dict["Address", "Collection[Address]"]
_LOOKED_FOR = {Protocol.UDP: None, Protocol.TCP: entry.UNHEARD}


def forget(frontends: Mapping[Frontend, Collection[Address]]) -> int:
    """Forget flows by their original destination.

    Of UDP all but those that lead to the right place already; of TCP those that nobody has translated, and
    nobody answered. Blocks, briefly; for any thread.

    Args:
        frontends: whose flows to forget, and under each the addresses to which one of UDP may go on leading.
            Of a frontend and the same for packets from outside, each spares what the other does: conntrack
            does not know where a flow came from.

    Returns:
        How many were forgotten.

    Raises:
        NetfilterError: some flows may be left; call again.
    """
    stale: dict[Protocol, _Stale] = {}
    for frontend, spared in frontends.items():
        of_protocol = stale.setdefault(frontend.protocol, {})
        of_protocol[frontend.address] = {*of_protocol.get(frontend.address, ()), *spared}
    if not stale:
        return 0
    with _conntrack() as connection:
        found = set()
        for protocol, of_protocol in stale.items():
            for question in _questions(protocol, of_protocol):
                for body in connection.dump(question):
                    fields = entry.fields_of(body)
                    if _is_stale(fields, protocol, of_protocol):
                        found.add(_named(fields))
        return _delete(connection, found)


def forget_redirected(listeners: Collection[Address]) -> int:
    """Forget the flows that were redirected to these addresses. Blocks, briefly; for any thread.

    Returns:
        How many were forgotten.

    Raises:
        NetfilterError: some flows may be left; call again.
    """
    with _conntrack() as connection:
        found = set()
        for body in connection.dump(entry.question(status=entry.TRANSLATED)):
            fields = entry.fields_of(body)
            reply = entry.direction(fields.get(entry.REPLY, b""))
            if reply is not None and reply.source in listeners:
                found.add(_named(fields))
        return _delete(connection, found)


@contextlib.contextmanager
def _conntrack() -> Iterator[Socket]:
    try:
        connection = Socket(entry.NETLINK_NETFILTER)
        try:
            yield connection
        finally:
            connection.close()
    except (RefusedError, OSError) as error:
        refused = isinstance(error, RefusedError) and error.refusal.errno == errno.EPERM
        remedy = " (run as root or grant CAP_NET_ADMIN)" if refused else ""
        raise NetfilterError(f"cannot forget flows: {error}{remedy}") from error


def _named(fields: Mapping[int, bytes]) -> tuple[bytes, bytes]:
    """The entry with these fields: its original direction and its number, as the kernel packs them."""
    return fields[entry.ORIGINAL], fields[entry.ID]


def _delete(connection: Socket, named: Collection[tuple[bytes, bytes]]) -> int:
    deletions = [entry.deletion(*each) for each in sorted(named)]
    for refusal in connection.request(deletions):
        if refusal.errno != errno.ENOENT:  # it expired meanwhile
            raise RefusedError(refusal, "conntrack entry")
    return len(deletions)


def _questions(protocol: Protocol, stale: _Stale) -> tuple[Message, ...]:
    status = _LOOKED_FOR[protocol]
    if len(stale) > SINGLE_DUMPS:
        return entry.questions(protocol, status)
    return tuple(dict.fromkeys(entry.question(protocol, each, status) for each in stale))


def _is_stale(fields: Mapping[int, bytes], protocol: Protocol, stale: _Stale) -> bool:
    """Whether a listed entry is one to forget."""
    original = entry.direction(fields.get(entry.ORIGINAL, b""))
    reply = entry.direction(fields.get(entry.REPLY, b""))
    if original is None or reply is None or original.protocol is not protocol:
        return False
    if original.destination not in stale:
        return False
    if protocol is Protocol.TCP:
        return entry.status_of(fields) & entry.UNHEARD.mask == entry.UNHEARD.bits
    return reply.source not in stale[original.destination]
