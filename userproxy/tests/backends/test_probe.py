"""One check, of a real socket: what passes, and how a failure is told."""

from __future__ import annotations

import select
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.backends.backend import LiveBackend
from userproxy.backends.probe import Probe
from userproxy.model.address import Address
from userproxy.model.settings import Check, HealthCheck
from userproxy.model.state import Backend
from userproxy.net.sockets import RESET_ON_CLOSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.net.poller import Poller
    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet")

HTTP = Check(kind=HealthCheck.HTTP, path="/healthz", status=((200, 299),))


class Pod:
    """A listening socket, and what it is asked."""

    def __init__(self) -> None:
        self._listener = net.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.address = Address(*self._listener.getsockname())

    def accept(self) -> net.socket:
        """The next client."""
        client, _ = self._listener.accept()
        client.settimeout(10)
        return client

    def answer(self, answer: bytes) -> bytes:
        """Take the next client's request, and answer it."""
        with self.accept() as client:
            request = client.recv(4096)
            client.sendall(answer)
        return request

    def close(self) -> None:
        """Refuse from now on."""
        self._listener.close()


@pytest.fixture
def pod() -> Iterator[Pod]:
    made = Pod()
    yield made
    made.close()


class Run:
    """A probe that is being made, and its outcome."""

    def __init__(self, sockets: Sockets, address: Address, check: Check) -> None:
        self.poller: Poller = sockets.poller()
        self.outcomes: list[str | None] = []
        live = LiveBackend(Backend(address), 0.0, 0.0)
        self.left: list[Probe] = []
        self.probe = Probe(
            self.poller, live, check, lambda _, failure: self.outcomes.append(failure), self.left.append
        )
        sockets.finally_call(self.probe.cancel)
        self.probe.start()

    def step(self) -> None:
        """Let the poller do what there is to do."""
        assert select.select([self.poller._epoll.fileno()], [], [], 10)[0], "nothing more happens"
        self.poller.dispatch()

    def outcome(self) -> str | None:
        """The one outcome."""
        while not self.outcomes:
            self.step()
        (found,) = self.outcomes
        return found

    def leaves(self) -> bool:
        """Whether it closes its socket by itself, without another word on the outcome."""
        while not self.left:
            self.step()
        return self.left == [self.probe] and len(self.outcomes) == 1


def test_a_connect_is_enough(sockets: Sockets, pod: Pod) -> None:
    assert Run(sockets, pod.address, Check()).outcome() == ""


def test_a_refusal_is_told(sockets: Sockets, pod: Pod) -> None:
    pod.close()
    assert Run(sockets, pod.address, Check()).outcome() == "connection refused"
    assert Run(sockets, pod.address, HTTP).outcome() == "connection refused"


def test_silence_is_told_when_its_time_is_over(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, HTTP)
    run.step()  # asked, and no answer comes
    assert run.outcomes == []
    run.probe.expire()
    assert run.outcome() == "connection timed out"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.0 200\r\n", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n" + b"x" * 9999, "HTTP status 503"),
        (b"SSH-2.0-OpenSSH_9.2 and so on, for more than anybody wants to read of it\r\n", "no HTTP answer"),
        (b"HTTP/1.1 2", "no HTTP answer"),
        (b"", "no HTTP answer"),
    ],
)
def test_the_status_line_decides(sockets: Sockets, pod: Pod, answer: bytes, expected: str) -> None:
    run = Run(sockets, pod.address, HTTP)
    run.step()
    request = pod.answer(answer)
    assert request.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert f"\r\nHost: {pod.address}\r\n".encode() in request
    assert run.outcome() == expected


def test_a_backend_that_hangs_up_without_a_word_has_failed(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, HTTP)
    run.step()
    pod.accept().close()  # with bytes unread: a reset
    assert run.outcome() == "connection reset by peer"


def is_in_order(client: net.socket) -> bool:
    """Whether a client that has finished did so, and may be told something still."""
    return client.recv(99) == b"" and client.getsockopt(net.SOL_SOCKET, net.SO_ERROR) == 0


def test_a_connect_ends_in_order(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, Check())
    assert run.outcome() == "", "which does not wait for the farewell"
    assert run.left == []
    with pod.accept() as client:
        assert is_in_order(client)
    assert run.leaves()


def test_so_does_one_to_a_pod_that_speaks_first(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, Check())
    client = pod.accept()
    client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert run.outcome() == ""
    with client:
        assert is_in_order(client)
        client.sendall(b"goodbye")
        run.step()
        assert is_in_order(client)
    assert run.leaves()


def test_a_pod_that_does_not_finish_is_not_waited_for_and_not_reset(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, Check(timeout=30.0))
    client = pod.accept()
    client.sendall(b"220 ready\r\n")
    assert run.outcome() == ""
    assert run.probe.ends - run.probe.began < 30.0
    while not run.probe._heard:
        run.step()
    run.probe.expire()
    assert run.leaves()
    with client:
        assert is_in_order(client)


def test_the_farewell_is_part_of_the_time_that_a_check_has(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, Check(timeout=0.1))
    ends = run.probe.ends
    assert run.outcome() == ""
    assert run.probe.ends == ends


def test_a_pod_that_answers_http_finishes_first(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, HTTP)
    run.step()
    with pod.accept() as client:
        assert b"\r\nConnection: close\r\n" in client.recv(4096)
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(100_000))
        assert run.outcome() == ""
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            client.recv(99)
        client.shutdown(net.SHUT_WR)
        assert run.leaves()
        client.settimeout(10)
        assert is_in_order(client)


def test_a_pod_that_never_ends_is_reset(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, HTTP)
    run.step()
    with pod.accept() as client:
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert run.outcome() == ""
        while not run.left:
            client.send(bytes(1 << 16))
            run.poller.dispatch()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(bytes(1 << 24))


def test_a_pod_that_resets_the_farewell_is_as_healthy_as_before(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, Check())
    client = pod.accept()
    assert run.outcome() == ""
    client.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET_ON_CLOSE)
    client.close()
    assert run.leaves()


def test_what_goes_wrong_with_the_farewell_is_not_an_outcome(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, Check())
    assert run.outcome() == ""
    run.probe.abort()
    assert run.leaves()


def test_what_we_lack_ourselves_says_nothing_of_the_backend(
    sockets: Sockets, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("userproxy.net.sockets.socket", none_left)
    assert Run(sockets, pod.address, Check()).outcome() is None


def test_a_probe_that_is_given_up_says_nothing_and_holds_nothing(sockets: Sockets, pod: Pod) -> None:
    run = Run(sockets, pod.address, HTTP)
    run.probe.cancel()
    run.poller.dispatch()
    assert run.outcomes == []
