"""The load tells each kind of failure as what it is, and takes none of its own making for one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.load.load import Load, server
from integration.sockets import reset
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RATE, HELD = 20, 3
OPTIONS = {"rate": RATE, "held": HELD, "transfers": 1, "every": 0.1, "patience": 1.5}


def reset_it(client: socket.socket, _request: bytes) -> None:
    reset(client)


def end_it(client: socket.socket, _request: bytes) -> None:
    client.shutdown(socket.SHUT_WR)  # closed, it would answer what comes next with a reset


def end_midway(client: socket.socket, request: bytes) -> None:
    client.sendall(request.split()[-1][:1])
    client.shutdown(socket.SHUT_WR)


def say_something_else(client: socket.socket, _request: bytes) -> None:
    client.sendall(b"0 somebody\n")
    client.shutdown(socket.SHUT_WR)


def answer_late(client: socket.socket, request: bytes) -> None:
    time.sleep(1.2)
    client.sendall(b"%b somebody\n" % request.split()[-1])
    client.shutdown(socket.SHUT_WR)


def say_nothing(_client: socket.socket, _request: bytes) -> None:
    pass


SERVERS = {
    "reset": reset_it,
    "fin": end_it,
    "midway": end_midway,
    "wrong": say_something_else,
    "late": answer_late,
    "never": say_nothing,
}
KINDS = {
    "refused": ({"refused"}, {"refused"}),
    "reset": ({"reset"}, {"reset"}),
    "fin": ({"truncated"}, {"fin"}),
    "midway": ({"truncated"}, {"fin"}),
    "wrong": ({"wrong"}, {"wrong"}),
    "late": ({"delayed"}, {"fin"}),
    "never": ({"silent"}, {"silent"}),
}


@contextlib.contextmanager
def bad_server(behave: Callable[[socket.socket, bytes], None]) -> Iterator[Address]:
    """A server on loopback that deals so with each first request."""
    kept: list[socket.socket] = []

    def deal_with(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            behave(client, client.recv(100))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                kept.append(client)
                threading.Thread(target=deal_with, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield Address(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(3.0)
            for client in kept:
                client.close()


@pytest.fixture
def nobody() -> Iterator[Address]:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Address(*bound.getsockname())


def test_it_tells_each_kind_of_failure(nobody: Address) -> None:
    with contextlib.ExitStack() as stack:
        addresses = {"refused": nobody} | {
            name: stack.enter_context(bad_server(behave)) for name, behave in SERVERS.items()
        }
        loads = {
            name: stack.enter_context(Load([], address, **OPTIONS)) for name, address in addresses.items()
        }
        for load in loads.values():
            load.wait_for("failures", lambda now: now.failed > RATE // 2)
        reports = {name: load.finish() for name, load in loads.items()}
    for name, report in reports.items():
        failures, ends = KINDS[name]
        print(f"{name}: {report}")
        assert {each.kind for each in report.failures} == failures, name
        assert {each.kind for each in report.cuts if each.what == "exchange"} == ends, name
        assert len(report.cuts) == HELD + 1
        assert report.connections == report.held == 0


def test_what_it_does_not_do_for_want_of_a_processor_is_no_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = Address(*free.getsockname())
    with server([], "here", address.port), Load([], address, questions=RATE, **OPTIONS) as load:
        load.settle(held=HELD + 1, connections=RATE)
        os.kill(load.pid, signal.SIGSTOP)
        time.sleep(2.5)  # longer than its patience
        os.kill(load.pid, signal.SIGCONT)
        load.go_on(connections=3 * RATE)
        report = load.finish()
    print(report)
    assert report.failures == []
    assert report.cuts == []
    assert report.late >= RATE
    assert report.servers == {"here": report.connections + report.questions}
