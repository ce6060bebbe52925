"""Messages and file descriptors between two processes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from userproxy.tests.sockets import open_fds
from userproxy.worker.channel import MAX_FDS, MAX_MESSAGE, PACKET, Channel, pair

if TYPE_CHECKING:
    import socket


class End:
    """One end, and what it heard."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[tuple[bytes, list[int]]] = []
        self.ended = 0
        self._news = asyncio.Event()
        self.channel = Channel(sock, asyncio.get_running_loop(), self._hear, self._end)

    async def hears(self, count: int) -> list[tuple[bytes, list[int]]]:
        """Wait for so many messages."""
        while len(self.heard) < count:
            await self._next()
        return self.heard

    async def is_left(self) -> None:
        """Wait until the other end is gone."""
        while not self.ended:
            await self._next()

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _hear(self, message: bytes, fds: list[int]) -> None:
        self.heard.append((message, fds))
        self._news.set()

    def _end(self) -> None:
        self.ended += 1
        self._news.set()


def ends() -> tuple[End, End]:
    near, far = pair()
    return End(near), End(far)


def fill(end: End) -> int:
    """Send until messages wait; returns how many were sent."""
    count = 0
    while not end.channel._queue:
        end.channel.send(count.to_bytes(4, "big") + bytes(PACKET - 5))
        count += 1
    return count


async def test_messages_go_both_ways() -> None:
    near, far = ends()
    near.channel.send(b"there")
    far.channel.send(b"back")
    near.channel.send(b"")
    assert await far.hears(2) == [(b"there", []), (b"", [])]
    assert await near.hears(1) == [(b"back", [])]
    near.channel.close()
    far.channel.close()


@pytest.mark.parametrize("size", [PACKET - 1, PACKET, PACKET + 1, 3 * PACKET, 5_000_000])
async def test_a_message_of_any_size_arrives_whole_and_with_its_files(size: int) -> None:
    near, far = ends()
    message = os.urandom(size)
    reader, writer = os.pipe()
    near.channel.send(message, [writer])
    near.channel.send(b"and another")
    (first, fds), (second, none) = await far.hears(2)
    assert (first == message, second, none) == (True, b"and another", [])
    os.write(fds[0], b"x")
    assert os.read(reader, 1) == b"x"
    for fd in (reader, writer, *fds):
        os.close(fd)
    near.channel.close()
    far.channel.close()


async def test_what_does_not_fit_waits_and_the_order_is_kept() -> None:
    near, far = ends()
    far.channel._loop.remove_reader(far.channel._sock.fileno())
    count = fill(near)
    reader, writer = os.pipe()
    near.channel.send(b"with a file", [writer])
    near.channel.send(b"last")
    far.channel._loop.add_reader(far.channel._sock.fileno(), far.channel._on_readable)
    heard = await far.hears(count + 2)
    assert [int.from_bytes(message[:4], "big") for message, _ in heard[:count]] == list(range(count))
    assert [message for message, _ in heard[count:]] == [b"with a file", b"last"]
    for fd in (reader, writer, *heard[count][1]):
        os.close(fd)
    near.channel.close()
    far.channel.close()


async def test_a_file_may_be_closed_while_its_message_waits_and_nothing_stays_open() -> None:
    before = open_fds()
    near, far = ends()
    far.channel._loop.remove_reader(far.channel._sock.fileno())
    count = fill(near)
    reader, writer = os.pipe()
    near.channel.send(b"the file", [writer])
    os.close(writer)
    far.channel._loop.add_reader(far.channel._sock.fileno(), far.channel._on_readable)
    heard = await far.hears(count + 1)
    os.write(heard[count][1][0], b"x")
    os.close(heard[count][1][0])
    assert os.read(reader, 2) == b"x"
    assert os.read(reader, 1) == b""  # nobody has the other end open, so the copy in the queue is closed, too
    os.close(reader)
    near.channel.close()
    far.channel.close()
    assert open_fds() <= before


async def test_files_of_messages_that_are_never_sent_are_closed() -> None:
    before = open_fds()
    near, far = ends()
    far.channel._loop.remove_reader(far.channel._sock.fileno())
    fill(near)
    reader, writer = os.pipe()
    near.channel.send(b"the file", [writer])
    near.channel.close()
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    far.channel.close()
    assert open_fds() <= before


async def test_an_end_that_is_gone_is_told_once_and_nothing_is_sent_to_it() -> None:
    near, far = ends()
    far.channel.send(b"the last word")
    far.channel.close()
    near.channel.send(b"to nobody")
    await near.is_left()
    assert near.heard == [(b"the last word", [])]
    near.channel.send(b"to nobody, again")
    near.channel.close()
    assert (near.ended, far.ended, near.channel.is_open) == (1, 0, False)


async def test_no_more_is_heard_by_an_end_that_hung_up_over_a_message() -> None:
    near, far = ends()

    def hang_up(message: bytes, _fds: list[int]) -> None:
        far.heard.append((message, []))
        far.channel.close()

    far.channel._receive = hang_up
    near.channel.send(b"one")
    near.channel.send(b"two")
    await near.is_left()
    assert far.heard == [(b"one", [])]
    near.channel.close()


async def test_what_is_too_large_is_refused_and_not_sent() -> None:
    near, far = ends()
    with pytest.raises(ValueError, match="is too large"):
        near.channel.send(b"", [0] * (MAX_FDS + 1))
    with pytest.raises(ValueError, match="is too large"):
        near.channel.send(bytes(MAX_MESSAGE + 1))
    near.channel.send(b"fine", [0] * MAX_FDS)
    ((message, fds),) = await far.hears(1)
    assert (message, len(fds)) == (b"fine", MAX_FDS)
    for fd in fds:
        os.close(fd)
        assert fd > 2
    near.channel.close()
    far.channel.close()


async def test_an_end_that_sends_without_end_is_hung_up_on() -> None:
    near, far = pair()
    end = End(far)
    near.settimeout(0)
    loop = asyncio.get_running_loop()
    sent = 0
    while not end.ended and sent <= 2 * MAX_MESSAGE:
        try:
            await loop.sock_sendall(near, b"\1" + bytes(PACKET))
        except OSError:
            break
        sent += PACKET
    await end.is_left()
    assert sent < MAX_MESSAGE + (1 << 23)
    assert end.heard == []
    near.close()


async def test_too_many_files_on_their_way_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = ends()
    real = near.channel._sock
    refusals = [OSError(109, "ETOOMANYREFS"), OSError(105, "ENOBUFS")]

    class Short:
        """A socket that has no room at first, though it can be written to."""

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def sendmsg(self, *args: object) -> object:
            if refusals:
                raise refusals.pop()
            return real.sendmsg(*args)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(near.channel, "_sock", Short())
    monkeypatch.setattr("userproxy.worker.channel._RETRY_SECONDS", 0)
    near.channel.send(b"one")
    near.channel.send(b"two")
    assert await far.hears(2) == [(b"one", []), (b"two", [])]
    assert refusals == []
    near.channel.close()
    far.channel.close()


async def test_what_waits_to_be_sent_can_be_waited_for() -> None:
    near, far = ends()
    await near.channel.flush(0.0)
    count = fill(near)
    await near.channel.flush(30.0)
    near.channel.close()
    await far.is_left()
    assert len(far.heard) == count


async def test_nobody_waits_for_an_end_that_is_gone_or_longer_than_was_said() -> None:
    near, far = pair()
    full = End(near)
    fill(full)
    await full.channel.flush(0.01)
    assert full.channel._queue, "its other end takes nothing"
    far.close()
    await full.channel.flush(30.0)
