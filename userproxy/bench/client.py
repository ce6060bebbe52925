"""The benchmark's own client, run in a client's namespace: `python -m userproxy.bench.client COMMAND ...`.

It is a process of its own because a socket belongs to the network namespace of the thread that makes it.

| command                        | prints                                                                  |
|--------------------------------|-------------------------------------------------------------------------|
| `answers COUNT ADDRESS...`     | a JSON array of COUNT times in seconds, of one connection each, from    |
|                                | connect() to the first byte of the answer; addresses by turns           |
| `until SECONDS ADDRESS...`     | `ready`, and then CLOCK_MONOTONIC when all have taken a connection      |
| `datagrams SECONDS ADDRESS`    | JSON: answers, lost, seconds, p50, p99 in seconds, of 64 UDP sockets    |
| `hold COUNT ADDRESS`           | `held N`, once N connections have carried a request; ends with stdin    |
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import resource
import select
import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_PATIENCE = 5.0
_EVERY_SECONDS = 0.001
_ATTEMPTS = 100

SOCKETS = 64
DATAGRAM = bytes(64)
_LOST_SECONDS = 0.5

Where = tuple[str, int]


def answers(count: int, addresses: list[Where]) -> list[float]:
    """Ask `count` times, each time in a new connection; the seconds that each answer took to begin.

    Raises:
        OSError: one did not come.
    """
    taken = []
    for address in itertools.islice(itertools.cycle(addresses), count):
        with socket.socket() as connection:
            connection.settimeout(_PATIENCE)
            began = time.perf_counter()
            _ask(connection, address)
            taken.append(time.perf_counter() - began)
    return taken


def until(address: Where, deadline: float) -> float:
    """When (CLOCK_MONOTONIC, which all processes share) the address first took a connection.

    One attempt after another is begun, without waiting for those before: on one that is not answered, the
    kernel would send the next SYN only after a second.

    Raises:
        TimeoutError: none was taken before the deadline, in CLOCK_MONOTONIC too.
    """
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        attempts: collections.deque[socket.socket] = collections.deque()
        while (now := time.monotonic()) < deadline:
            attempt = stack.enter_context(socket.socket())
            attempt.settimeout(0)
            attempt.connect_ex(address)
            poll.register(attempt, select.POLLOUT)
            attempts.append(attempt)
            if _taken(poll, attempts):
                return time.monotonic()
            time.sleep(max(0.0, now + _EVERY_SECONDS - time.monotonic()))
            if len(attempts) > _ATTEMPTS:
                _forget(poll, attempts, attempts[0])
    raise TimeoutError("no connection was taken in time")


def _taken(poll: select.poll, attempts: collections.deque[socket.socket]) -> bool:
    """Wait a moment for one of the attempts to succeed; those that fail are forgotten."""
    for number, _ in poll.poll(_EVERY_SECONDS * 1000):
        attempt = next(each for each in attempts if each.fileno() == number)
        if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            return True
        _forget(poll, attempts, attempt)
    return False


def _forget(poll: select.poll, attempts: collections.deque[socket.socket], attempt: socket.socket) -> None:
    poll.unregister(attempt)
    attempts.remove(attempt)
    attempt.close()


def datagrams(seconds: float, address: Where) -> dict[str, float]:
    """Send datagrams from `SOCKETS` sockets, from each the next one when the last one is answered, or lost.

    Raises:
        TimeoutError: none was answered.
    """
    clock = time.perf_counter
    poll, sent, taken, lost = select.epoll(), dict[int, float](), list[float](), 0
    with contextlib.ExitStack() as stack:
        sockets: dict[int, socket.socket] = {}
        for _ in range(SOCKETS):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.setblocking(False)  # noqa: FBT003 - takes no keyword
            sock.connect(address)
            sockets[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        began = clock()
        for number, sock in sockets.items():
            sent[number] = clock()
            sock.send(DATAGRAM)
        while clock() - began < seconds:
            ready = [number for number, _ in poll.poll(_LOST_SECONDS)]
            for number in ready:
                sockets[number].recv(65535)
                taken.append(clock() - sent[number])
            late = [] if ready else [each for each in sockets if clock() - sent[each] >= _LOST_SECONDS]
            lost += len(late)
            for number in ready or late:
                sent[number] = clock()
                sockets[number].send(DATAGRAM)
        total = clock() - began
    if not taken:
        raise TimeoutError("no datagram was answered")
    taken.sort()
    p50, p99 = (taken[int(len(taken) * share)] for share in (0.5, 0.99))
    return {"answers": len(taken), "lost": lost, "seconds": total, "p50": p50, "p99": p99}


def hold(count: int, address: Where) -> list[socket.socket]:
    """Open that many connections, each of which has carried a request and its answer.

    Raises:
        OSError: one was refused or not answered.
    """
    held = []
    for _ in range(count):
        connection = socket.socket()
        held.append(connection)
        connection.settimeout(_PATIENCE)
        _ask(connection, address)
    return held


def main(argv: list[str]) -> int:
    """Carry one command out; returns the exit code."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command, number, *targets = argv
    addresses = [_address(text) for text in targets]
    try:
        if command == "answers":
            _say(json.dumps(answers(int(number), addresses)))
        elif command == "until":
            _say("ready")
            deadline = time.monotonic() + float(number)
            _say(f"{[until(address, deadline) for address in addresses][-1]:.9f}")
        elif command == "datagrams":
            _say(json.dumps(datagrams(float(number), addresses[0])))
        elif command == "hold":
            held = hold(int(number), addresses[0])
            _say(f"held {len(held)}")
            sys.stdin.read()
    except OSError as error:
        sys.stderr.write(f"{' '.join(targets[:1])}: {error}\n")
        return 1
    return 0


def _ask(connection: socket.socket, address: Where) -> None:
    connection.connect(address)
    connection.sendall(REQUEST)
    if not connection.recv(4096):
        raise ConnectionError("the connection was closed without an answer")


def _address(text: str) -> Where:
    ip, _, port = text.rpartition(":")
    return ip, int(port)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
