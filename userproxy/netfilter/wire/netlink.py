"""A blocking netlink socket with a time limit: the only road from this layer to the kernel.

pyroute2's own sockets run an event loop of theirs inside each call, which fails on the thread of a running
loop and cannot be given a time limit. Its message classes are used as a codec (`encode.py`); this module
carries the bytes. The kernel works a request off within `send`, so an answer is there as soon as `send`
returns and the time limit is only a net.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT_SECONDS = 5.0
RECEIVE_BYTES = 256 * 1024
BUFFER_BYTES = 4 * 1024 * 1024

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x01, 0x04, 0x10
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND, NLM_F_DUMP = 0x200, 0x400, 0x800, 0x300
NLM_F_ACK_TLVS, NLM_F_CAPPED = 0x200, 0x100
NLMSG_ERROR, NLMSG_DONE = 2, 3
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES = 0x10, 0x11, 10
NLMSGERR_ATTR_MSG = 1

NFT_SUBSYSTEM = NFNL_SUBSYS_NFTABLES << 8
NFTABLES_HEADER = struct.pack(">BBH", 1, 0, 0)
"""Of a message about nftables: the inet family."""

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
DUMP_ATTEMPTS = 10

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_KIND = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class Message(NamedTuple):
    """One netlink message without its header.

    Attributes:
        kind: the message type, subsystem included.
        flags: NLM_F_REQUEST is added by the socket.
        body: the family's own header and the attributes.
        what: names the message in an error, `chain capture`.
    """

    kind: int
    flags: int
    body: bytes
    what: str = ""


class Refusal(NamedTuple):
    """What the kernel answered instead of 0."""

    errno: int
    reason: str
    position: int

    def __str__(self) -> str:
        return f"{os.strerror(self.errno)}{': ' if self.reason else ''}{self.reason}"


class RefusedError(Exception):
    """The kernel refused one message of a request; of an atomic batch, nothing was applied.

    Attributes:
        refusal: the first refusal; its position counts the messages of the request from 0, -1 is the batch
        as a whole.
        what: the refused message's own name.
    """

    def __init__(self, refusal: Refusal, what: str) -> None:
        super().__init__(f"{what}: {refusal}")
        self.refusal = refusal
        self.what = what


class Socket:
    """A netlink socket, of the namespace that it was made in. One caller at a time, from any thread."""

    def __init__(
        self, protocol: int, timeout: float = TIMEOUT_SECONDS, inherited: socket.socket | None = None
    ) -> None:
        """Open the socket, or go on with one that an earlier `Socket` has had (`raw`).

        Raises:
            OSError: the kernel does not speak this protocol.
        """
        self._sequence = 0
        self._timeout = timeout
        if inherited is not None:
            self._socket = inherited
            self._discard_answers()
            self._socket.settimeout(timeout)
            return
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(timeout)
        self._force_buffer(SO_RCVBUFFORCE, socket.SO_RCVBUF, BUFFER_BYTES)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

    @property
    def raw(self) -> socket.socket:
        """The socket itself, to be given away."""
        return self._socket

    @property
    def port(self) -> int:
        """By which the kernel knows this socket."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def batch(self, messages: Sequence[Message], *, commit: bool = True) -> None:
        """Apply nftables messages atomically; without `commit`, only check that the kernel would take them.

        Raises:
            RefusedError: nothing was applied.
            OSError: likewise; TimeoutError if no answer came, when the outcome is unknown.
        """
        if not messages:
            return
        boundary = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
        begin, end = Message(NFNL_MSG_BATCH_BEGIN, 0, boundary), Message(NFNL_MSG_BATCH_END, 0, boundary)
        # Errors come unasked; the acknowledgement of the last message tells that no more are to come.
        last = messages[-1]._replace(flags=messages[-1].flags | NLM_F_ACK)
        first = self._send([begin, *messages[:-1], last, *([end] if commit else [])])
        refusals = self._answers(first, awaited={first + len(messages)}, fatal=first)
        if refusals:
            refusal = refusals[0]._replace(position=refusals[0].position - 1)
            what = messages[refusal.position].what if refusal.position >= 0 else "the batch"
            raise RefusedError(refusal, what)

    def request(self, messages: Sequence[Message]) -> list[Refusal]:
        """Apply messages one by one, all of them, in one datagram; returns what the kernel refused.

        Raises:
            OSError: nothing is known of what was applied.
        """
        if not messages:
            return []
        first = self._send([message._replace(flags=message.flags | NLM_F_ACK) for message in messages])
        return self._answers(first, awaited=set(range(first, first + len(messages))))

    def get(self, message: Message) -> bytes:
        """The body of the one message that answers `message`.

        Raises:
            RefusedError: the kernel refused.
            OSError: no answer.
        """
        sequence = self._send([message])
        for kind, _, body in self._messages_of(sequence):
            if kind == NLMSG_ERROR:
                raise RefusedError(_refusal(0, body, 0), message.what)
            return body
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def get_each(self, messages: Sequence[Message]) -> list[bytes | None]:
        """The bodies of the messages that answer these, one each; None where the kernel refused.

        Raises:
            OSError: no answer.
        """
        found: list[bytes | None] = [None] * len(messages)
        if not messages:
            return found
        first = self._send(messages)
        left = len(messages)
        for kind, _, sequence, body in self._messages():
            if sequence < first:
                continue
            if kind != NLMSG_ERROR:
                found[sequence - first] = body
            left -= 1
            if not left:
                break
        return found

    def dump(self, message: Message) -> list[bytes]:
        """The bodies of all messages that answer a dump: one consistent state, never the mix of two.

        Raises:
            RefusedError: the kernel refused.
            OSError: no answer, or the state changed during each of many attempts.
        """
        for _ in range(DUMP_ATTEMPTS):
            bodies = self._dump_once(message)
            if bodies is not None:
                return bodies
        raise OSError(
            errno.EAGAIN, f"{message.what}: changed during each of {DUMP_ATTEMPTS} attempts to read it"
        )

    def _dump_once(self, message: Message) -> list[bytes] | None:
        """None if the kernel says that the state changed meanwhile (NLM_F_DUMP_INTR)."""
        sequence = self._send([message._replace(flags=message.flags | NLM_F_DUMP)])
        bodies: list[bytes] = []
        interrupted = False
        for kind, flags, body in self._messages_of(sequence):
            interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if kind == NLMSG_ERROR:
                raise RefusedError(_refusal(flags, body, 0), message.what)
            if kind == NLMSG_DONE:
                # A dump that fails half way says so in its last message.
                status = int.from_bytes(body[:4], sys.byteorder, signed=True)
                if status < 0:
                    raise RefusedError(Refusal(-status, "", 0), message.what)
                break
            bodies.append(body)
        return None if interrupted else bodies

    def _send(self, messages: Sequence[Message]) -> int:
        """Number the messages from the returned sequence number on, and send them as one datagram."""
        first = self._sequence + 1
        self._sequence += len(messages)
        packed = [
            _HEADER.pack(
                16 + len(message.body), message.kind, message.flags | NLM_F_REQUEST, first + offset, 0
            )
            + message.body
            for offset, message in enumerate(messages)
        ]
        data = b"".join(packed)
        if len(data) > self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2:
            # A datagram that does not fit whole is EMSGSIZE.
            self._force_buffer(SO_SNDBUFFORCE, socket.SO_SNDBUF, len(data) * 2)
        self._socket.send(data)
        return first

    def _answers(self, first: int, awaited: set[int], fatal: int = -1) -> list[Refusal]:
        """Read until each of `awaited` is answered, or `fatal` is refused."""
        refusals = []
        for kind, flags, sequence, body in self._messages():
            if kind != NLMSG_ERROR or sequence < first:
                continue
            refusal = _refusal(flags, body, sequence - first)
            if refusal.errno:
                refusals.append(refusal)
            awaited.discard(sequence)
            if not awaited or (refusal.errno and sequence == fatal):
                break
        return refusals

    def _messages_of(self, wanted: int) -> Iterator[tuple[int, int, bytes]]:
        for kind, flags, sequence, body in self._messages():
            if sequence == wanted:
                yield kind, flags, body

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                if length < _HEADER.size:
                    break
                yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3

    def _discard_answers(self) -> None:
        """What was answered to whoever had the socket before is nobody's business any more."""
        self._socket.setblocking(False)  # noqa: FBT003 - as the method has it
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(RECEIVE_BYTES)

    def _force_buffer(self, force: int, plain: int, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force, size)
        except (
            PermissionError
        ):  # without CAP_NET_ADMIN; the request itself will be refused with a better reason
            self._socket.setsockopt(socket.SOL_SOCKET, plain, size)


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute: length, kind, payload, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def string(text: str) -> bytes:
    """A name as netlink carries it."""
    return text.encode() + b"\0"


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data` from `offset` on, as (kind, payload); kinds without their flag bits."""
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _ATTRIBUTE_KIND, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _refusal(flags: int, body: bytes, index: int) -> Refusal:
    """Read `struct nlmsgerr`, and the extended reason behind it where the kernel gives one."""
    code, request_length = struct.unpack_from("=iI", body)
    reason = ""
    if flags & NLM_F_ACK_TLVS:
        offset = 4 + (16 if flags & NLM_F_CAPPED else request_length)
        for kind, payload in attributes(body, offset):
            if kind == NLMSGERR_ATTR_MSG:
                reason = payload.rstrip(b"\0").decode(errors="replace")
    return Refusal(-code, reason, index)
