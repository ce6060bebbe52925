"""What carries the bytes: the same promises from a pipe and from a buffer, and a pool that loses neither."""

from __future__ import annotations

import errno
import fcntl
import os
import socket as net
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp import pipes
from userproxy.dataplane.tcp.pipes import Carrier, Copy, Pipe, PipePool
from userproxy.tests.sockets import open_fds

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator

    from userproxy.tests.sockets import Sockets


@pytest.fixture(params=[Pipe, Copy])
def carrier(request: pytest.FixtureRequest) -> Iterator[Carrier]:
    carrier = request.param()
    yield carrier
    if isinstance(carrier, Pipe):
        carrier.close()


def fill_up(sock: socket) -> int:
    """Send until no more is taken; returns how many bytes were."""
    taken = 0
    try:
        while True:
            taken += sock.send(bytes(65536))
    except BlockingIOError:
        return taken


def empty(sock: socket) -> bytes:
    """Receive until there is no more."""
    parts = []
    try:
        while part := sock.recv(1 << 20):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts)


def test_bytes_pass_unchanged(sockets: Sockets, carrier: Carrier) -> None:
    (source, near), (there, far) = sockets.pair(), sockets.pair()
    source.send(b"ab\0cd")
    assert carrier.fill(near.fileno()) == carrier.held == 5
    assert carrier.drain(there.fileno()) == carrier.held == 0
    assert far.recv(100) == b"ab\0cd"


def test_filling_tells_nothing_yet_from_the_end(sockets: Sockets, carrier: Carrier) -> None:
    source, near = sockets.pair()
    with pytest.raises(BlockingIOError):
        carrier.fill(near.fileno())
    assert carrier.held == 0
    source.close()
    assert carrier.fill(near.fileno()) == 0
    assert carrier.held == 0


def test_a_full_socket_takes_none_and_what_is_held_stays(sockets: Sockets, carrier: Carrier) -> None:
    (source, near), (there, far) = sockets.pair(), sockets.pair()
    source.send(b"held")
    carrier.fill(near.fileno())
    fill_up(there)
    with pytest.raises(BlockingIOError):
        carrier.drain(there.fileno())
    assert carrier.held == 4
    empty(far)
    assert carrier.drain(there.fileno()) == 0
    assert far.recv(100) == b"held"


def test_what_a_socket_takes_in_part_arrives_in_order(sockets: Sockets, carrier: Carrier) -> None:
    (source, near), (there, far) = sockets.pair(), sockets.pair()
    there.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 4096)
    data = os.urandom(150_000)
    sent = source.send(data)
    received, in_part = b"", 0
    while len(received) < sent:
        if not carrier.held:
            carrier.fill(near.fileno())
        in_part += carrier.drain(there.fileno()) > 0
        received += empty(far)
    assert in_part > 0
    assert received == data[:sent]


def test_a_broken_socket_is_told_from_a_full_one(sockets: Sockets, carrier: Carrier) -> None:
    (source, near), (there, far) = sockets.pair(), sockets.pair()
    source.send(b"x")
    carrier.fill(near.fileno())
    far.close()
    with pytest.raises(BrokenPipeError):
        carrier.drain(there.fileno())
    assert carrier.held == 1


def test_a_pipe_takes_a_megabyte_where_the_system_allows_it() -> None:
    before = open_fds()
    pipe = Pipe()
    capacity = os.write(pipe._write_fd, bytes(2 * pipes.PIPE_BYTES))
    assert capacity in (pipes.PIPE_BYTES, 1 << 16)
    pipe.close()
    assert open_fds() == before


# --- the pool


@pytest.fixture
def pool(sockets: Sockets) -> Iterator[PipePool]:
    del sockets  # looks for what is left open
    pool = PipePool(2)
    yield pool
    pool.close()


def test_the_pipe_used_last_is_at_hand_next(pool: PipePool) -> None:
    first, second = pool.take(), pool.take()
    pool.release(first)
    assert pool.at_hand is first
    pool.release(second)
    assert pool.take() is first
    assert pool.take() is second
    pool.release(first)
    pool.release(second)


def test_over_its_limit_the_pool_lends_buffers_and_takes_pipes_back(pool: PipePool) -> None:
    lent = [pool.take() for _ in range(3)]
    assert [type(one) for one in lent] == [Pipe, Pipe, Copy]
    assert pool.lent == 2
    for one in lent:
        pool.release(one)
    assert pool.lent == 0
    again = [pool.take() for _ in range(3)]
    assert [type(one) for one in again] == [Pipe, Pipe, Copy]
    assert set(again[:2]) == set(lent[:2])
    for one in again:
        pool.release(one)


def test_no_byte_of_one_connection_reaches_another(sockets: Sockets, pool: PipePool) -> None:
    source, near = sockets.pair()
    source.send(b"secret")
    pool.at_hand.fill(near.fileno())
    used = pool.take()
    pool.release(used)
    assert pool.lent == 0
    following = pool.take()
    assert following is not used
    assert following.held == 0
    with pytest.raises(BlockingIOError):
        os.read(following._read_fd, 1)  # type: ignore[union-attr]  # a pipe
    second = pool.take()
    assert isinstance(second, Pipe), "the one that was thrown away counts no more"
    pool.release(following)
    pool.release(second)


def test_trimming_closes_only_what_nobody_uses(pool: PipePool) -> None:
    lent, spare = pool.take(), pool.take()
    pool.release(spare)
    held = len(open_fds())
    pool.trim(0)
    assert len(open_fds()) == held, "one is at hand, one is lent"
    pool.release(lent)
    pool.trim(1)
    assert len(open_fds()) == held
    pool.trim(0)
    assert len(open_fds()) == held - 2
    assert pool.lent == 0


def test_a_closed_pool_has_no_pipe_left(sockets: Sockets) -> None:
    del sockets  # looks for what is left open
    before = open_fds()
    pool = PipePool(3)
    lent = [pool.take(), pool.take()]
    for one in lent:
        pool.release(one)
    pool.close()
    assert open_fds() == before
    assert pool.lent == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_file_descriptor_left_bytes_are_copied(
    pool: PipePool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def pipe2(_flags: int) -> tuple[int, int]:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe2", pipe2)
        pipe = pool.take()
        assert isinstance(pipe, Pipe)
        assert isinstance(pool.take(), Copy)
        pool.trim(0)
        kinds = [type(pool.at_hand)]
    pool.trim(0)
    kinds.append(type(pool.at_hand))
    assert kinds == [Copy, Pipe], "there are some again"
    assert pool.lent == 1
    pool.release(pipe)


def test_a_pipe_that_may_not_grow_works_at_its_size(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, command: int, _size: int = 0) -> int:
        if command == fcntl.F_GETPIPE_SZ:
            return 1 << 16
        raise PermissionError(errno.EPERM, "over pipe-user-pages-soft")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    pipe = Pipe()
    (source, near), (there, far) = sockets.pair(), sockets.pair()
    source.send(b"x")
    pipe.fill(near.fileno())
    assert pipe.drain(there.fileno()) == 0
    assert far.recv(9) == b"x"
    pipe.close()


def test_as_many_pipes_as_may_be_are_large_and_those_are_at_hand_first(sockets: Sockets) -> None:
    del sockets  # looks for what is left open
    pool = PipePool(100)
    lent = [pool.take() for _ in range(40)]
    assert [one.large for one in lent if isinstance(one, Pipe)] == [True] * 32 + [False] * 8
    for one in lent:
        pool.release(one)
    again = [pool.take() for _ in range(32)]
    assert all(isinstance(one, Pipe) and one.large for one in again)
    for one in again:
        pool.release(one)
    pool.close()


def test_a_pipe_that_takes_less_than_a_buffer_is_not_used(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    del sockets  # looks for what is left open
    monkeypatch.setattr(fcntl, "fcntl", lambda _fd, _command, _size=0: 8192)
    assert isinstance(PipePool(2).at_hand, Copy)


def test_nobody_without_capabilities_runs_out_of_pipes_that_are_worth_it_soon() -> None:
    # In a process that has a user of its own, if this one is root's: others' pipes do not count there.
    program = """
import fcntl, resource
from userproxy.dataplane.tcp.pipes import Copy, PipePool
from userproxy.worker import privileges
privileges.give_up_all()
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
pool = PipePool(600)
lent = [pool.take() for _ in range(600)]
sizes = [0 if isinstance(one, Copy) else fcntl.fcntl(one._read_fd, fcntl.F_GETPIPE_SZ) for one in lent]
assert min(size for size in sizes if size) >= 1 << 14, sizes
print(sum(map(bool, sizes)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    if os.geteuid() == 0:
        assert int(done.stdout) > 500
