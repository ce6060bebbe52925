"""Forgetting flows.

A flow keeps the translation of its first packet for as long as its client keeps sending. Whoever changes
where a UDP frontend leads, or removes it, has the flows forgotten that lead elsewhere, or old clients stay
with what is gone. TCP connections end by themselves and are left alone; but for those to a listener whose
address the node has lost: their packets would go on to nowhere, and so their clients would wait for long.
Forgotten, they get to a listener that does not know them, and are reset.
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

SINGLE_DUMPS = 8
"""Up to so many frontends the kernel is asked for each one's flows; for more, for all UDP flows."""

_Stale = dict["Address", "Collection[Address]"]


def forget(frontends: Mapping[Frontend, Collection[Address]]) -> int:
    """Forget UDP flows by their original destination, but for those that lead to the right place already.

    Blocks, briefly; for any thread. TCP frontends are left out.

    Args:
        frontends: whose flows to forget, and under each the addresses to which a flow may go on leading. Of a
            frontend and the same for packets from outside, each spares what the other does: conntrack does
            not know where a flow came from.

    Returns:
        How many were forgotten.

    Raises:
        NetfilterError: some flows may be left; call again.
    """
    stale: _Stale = {}
    for frontend, spared in frontends.items():
        if frontend.protocol == Protocol.UDP:
            stale[frontend.address] = {*stale.get(frontend.address, ()), *spared}
    if not stale:
        return 0
    with _conntrack() as connection:
        questions = entry.questions(Protocol.UDP)
        if len(stale) <= SINGLE_DUMPS:
            asked = (entry.question(Protocol.UDP, each, dnat=False) for each in stale)
            questions = tuple(dict.fromkeys(asked))
        found = {
            original
            for question in questions
            for body in connection.dump(question)
            for original in _stale_original(body, stale)
        }
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
        for body in connection.dump(entry.question(dnat=True)):
            fields = entry.fields_of(body)
            reply = entry.direction(fields.get(entry.REPLY, b""))
            if reply is not None and reply.source in listeners:
                found.add(fields[entry.ORIGINAL])
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


def _delete(connection: Socket, originals: Collection[bytes]) -> int:
    deletions = [entry.deletion(original) for original in sorted(originals)]
    for refusal in connection.request(deletions):
        if refusal.errno != errno.ENOENT:  # it expired meanwhile
            raise RefusedError(refusal, "conntrack entry")
    return len(deletions)


def _stale_original(body: bytes, stale: _Stale) -> Iterator[bytes]:
    """The original direction of a listed entry as the kernel packs it, if the entry is one to forget."""
    fields = entry.fields_of(body)
    original = entry.direction(fields.get(entry.ORIGINAL, b""))
    reply = entry.direction(fields.get(entry.REPLY, b""))
    if original is None or reply is None or original.protocol is not Protocol.UDP:
        return
    spared = stale.get(original.destination)
    if spared is not None and reply.source not in spared:
        yield fields[entry.ORIGINAL]
