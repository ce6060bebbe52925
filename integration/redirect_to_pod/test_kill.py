"""`userproxy kill` ends what the kernel carries to pods: all that was meant, and nothing else."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_pod.servers import ask_udp, hold, lives, serving, udp_client
from integration.redirect_to_pod.services import put, service, tcp, udp
from integration.sockets import PATIENCE_SECONDS, connect, listen
from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.service import ServicePortName
from userproxy.ops.admin.messages import Killed
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from userproxy.lab.deployment import Lab

MEANT, OTHER = Address("10.3.242.20", 80), Address("10.3.242.21", 80)
TCP, UDP = tcp(80, 7000), udp(80, 7000)
MANY = 1000
WITHIN_SECONDS = 2.0


def kill(lab: Lab, name: str) -> Killed:
    """What ending all connections of a Service comes to."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        return admin.kill(None, ConnectionFilter(service=ServicePortName("default", name)))


class Traffic:
    """Both ends of connections; of the busy ones, each end sends back what it gets."""

    def __init__(self, ends: Iterable[socket.socket], busy: Iterable[socket.socket]) -> None:
        self.reset_at: dict[socket.socket, float] = {}
        self.others: list[str] = []
        self._selector = selectors.DefaultSelector()
        self._ends = {end.fileno(): end for end in ends}
        for end in self._ends.values():
            end.settimeout(0)
            self._selector.register(end, selectors.EVENT_READ)
        for end in busy:
            end.send(b"?")

    @property
    def is_over(self) -> bool:
        """Whether all ends are gone."""
        return len(self.reset_at) + len(self.others) == len(self._ends)

    def go_on(self, seconds: float) -> None:
        """Carry bytes for so long, or until all ends are reset."""
        ends = time.monotonic() + seconds
        while not self.is_over and time.monotonic() < ends:
            for key, _ in self._selector.select(0.05):
                self._answer(self._ends[key.fd])

    def _answer(self, end: socket.socket) -> None:
        try:
            data = end.recv(100)
            if data:
                end.send(data)
                return
            self.others.append("finished")
        except ConnectionResetError:
            self.reset_at[end] = time.monotonic()
        except OSError as error:
            self.others.append(repr(error))
        self._selector.unregister(end)


def test_all_connections_of_a_service_are_reset_at_both_ends_and_no_others(lab: Lab) -> None:
    """Of two pods, one is on the client's bridge and one on another node."""
    with (
        contextlib.ExitStack() as stack,
        service(lab, "meant", MEANT.ip, [TCP], ["server1", "server2"]),
        service(lab, "other", OTHER.ip, [tcp(80, 7001)], ["server1", "server2"]),
    ):
        listeners = [stack.enter_context(listen(lab, pod, 7000)) for pod in ("server1", "server2")]
        clients = [stack.enter_context(connect(lab, "client", MEANT)) for _ in range(2 * MANY)]
        servers = [stack.enter_context(each) for each in accepted(listeners)]
        stack.enter_context(serving(lab, ["server1", "server2"], 7001))
        kept = [stack.enter_context(hold(lab, "client", OTHER)[0]) for _ in range(20)]
        traffic = Traffic([*clients, *servers], busy=clients[:MANY])
        traffic.go_on(0.5)
        began = time.monotonic()
        killing = stack.enter_context(ThreadPoolExecutor()).submit(kill, lab, "meant")
        traffic.go_on(PATIENCE_SECONDS)
        answer = killing.result()
        assert (len(traffic.reset_at), traffic.others) == (4 * MANY, [])
        assert (answer.carried, answer.killed, answer.left) == (2 * MANY, 2 * MANY, ())
        assert max(traffic.reset_at.values()) - began < WITHIN_SECONDS
        assert all(map(lives, kept))
        assert kill(lab, "meant") == Killed(killed=0)


def test_who_asks_from_the_host_or_asks_itself_is_ended_and_the_command_says_so(lab: Lab) -> None:
    with (
        serving(lab, ["server1"], 7000),
        service(lab, "near", MEANT.ip, [TCP, UDP], ["server1"]),
        udp_client(lab, "client", MEANT) as datagrams,
        hold(lab, "host1", MEANT)[0] as from_host,
        hold(lab, "server1", MEANT)[0] as from_itself,
    ):
        ask_udp(datagrams)
        said = lab.userproxy("host1", "kill", "--service", "default/near")
        assert said == "killed 3 connections of default/near: 0 relayed, 3 carried by the kernel\n"
        for each in (from_host, from_itself):
            with pytest.raises(ConnectionResetError):
                each.recv(1)
        assert lab.rows("host1", "connections", "--service", "default/near") == []
        assert ask_udp(datagrams)[0] == "server1:7000", "a UDP client is chosen for anew"


def test_connections_end_at_their_age_and_when_their_pod_is_gone(lab: Lab) -> None:
    aged, removed = {"max-connection-age": "2s"}, {"close-on-removal": "1s"}
    with (
        serving(lab, ["server1", "server2"], 7000),
        service(lab, "aged", MEANT.ip, [TCP], ["server1"], annotations=aged),
        service(lab, "removed", OTHER.ip, [TCP], ["server1"], annotations=removed),
        hold(lab, "client", OTHER)[0] as to_the_removed,
        hold(lab, "client", MEANT)[0] as aging,
    ):
        began = time.monotonic()
        assert lives(aging)
        put(lab, "removed", OTHER.ip, [TCP], ["server2"], annotations=removed)
        for each in (to_the_removed, aging):
            each.settimeout(PATIENCE_SECONDS)
            with pytest.raises(ConnectionResetError):
                each.recv(1)
        assert 1.5 < time.monotonic() - began < 8.0
        with hold(lab, "client", OTHER)[0] as kept:
            assert lives(kept)


def accepted(listeners: Sequence[socket.socket]) -> Iterator[socket.socket]:
    """What has been accepted already, without the checks of the pods' health, which are over."""
    for listener in listeners:
        listener.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                found = listener.accept()[0]
                try:
                    is_over = found.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
                except BlockingIOError:
                    is_over = False
                if is_over:
                    found.close()
                else:
                    yield found
