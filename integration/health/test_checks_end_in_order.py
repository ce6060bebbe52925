"""A check ends as a client's connection does: no pod is reset, and little is left on the node."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from integration.health.scenes import server, states
from integration.services import published
from integration.sockets import accept, listen
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userproxy.lab.deployment import Lab

NAME = "in-order"
IP = "10.3.242.60"
CHECKS = 20
SLOW_SECONDS = 2.5


@contextlib.contextmanager
def pod(lab: Lab, port: int, serve: Callable[[socket.socket], str]) -> Iterator[Counter[str]]:
    """A pod that serves each client on a thread of its own; yields how that ended."""
    seen: Counter[str] = Counter()

    def serve_one(client: socket.socket) -> None:
        with client:
            try:
                seen[serve(client)] += 1
            except OSError as error:
                seen[str(error)] += 1

    def serve_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve_one, args=(accept(listener),), daemon=True).start()

    with listen(lab, "server1", port) as listener:
        thread = threading.Thread(target=serve_all)
        thread.start()
        yield seen
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def hear_out(client: socket.socket) -> str:
    while client.recv(4096):
        pass
    return "in order"


def greet(client: socket.socket) -> str:
    client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    found = hear_out(client)
    client.sendall(b"goodbye")
    return found


def dawdle(client: socket.socket) -> str:
    found = hear_out(client)
    time.sleep(SLOW_SECONDS)
    return found


def resets_sent(lab: Lab) -> int:
    """By host1, ever (RFC 4022, tcpOutRsts)."""
    lines = lab.exec("host1", "cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("OutRsts")])


def sockets(lab: Lab, member: str, side: str, port: int) -> Counter[str]:
    """The states of a member's sockets with this port on one side: `sport` or `dport`."""
    listed = lab.exec(member, "ss", "-Htan", side, "=", f":{port}").stdout
    return Counter(line.split()[0] for line in listed.splitlines())


def test_tcp_checks_reset_nobody(lab: Lab) -> None:
    before = resets_sent(lab)
    serves = {7801: hear_out, 7802: greet, 7803: dawdle}
    pods = [Address(SERVER1.ip, port) for port in serves]

    def left() -> dict[int, Counter[str]]:
        return {port: sockets(lab, "host1", "dport", port) for port in serves}

    with contextlib.ExitStack() as stack:
        seen = {port: stack.enter_context(pod(lab, port, serve)) for port, serve in serves.items()}
        with published(lab, NAME, IP, pods, health_check="tcp", health_check_interval="100ms"):
            wait_until("they are checked", lambda: min(map(Counter.total, seen.values())) >= CHECKS, 30.0)
            assert set(states(lab, NAME).values()) == {"up"}
        wait_until(
            "all are over", lambda: all(set(found) <= {"TIME-WAIT"} for found in left().values()), 10.0
        )
    ends = {port: dict(count) for port, count in seen.items()}
    print(f"checks {ends}, left on the node {left()}")
    assert all(set(count) == {"in order"} for count in seen.values())
    assert all(left()[port].total() <= seen[port].total() for port in serves)
    assert resets_sent(lab) == before


def test_http_checks_leave_the_waiting_to_the_pod(lab: Lab) -> None:
    before = resets_sent(lab)
    with server(lab, "server1", 7804) as address:

        def waiting(member: str, side: str) -> int:
            return sockets(lab, member, side, 7804)["TIME-WAIT"]

        with published(lab, NAME, IP, [address], health_check="http", health_check_interval="100ms"):
            wait_until("it is checked", lambda: waiting("server1", "sport") >= CHECKS, 30.0)
            assert set(states(lab, NAME).values()) == {"up"}
        assert waiting("host1", "dport") == 0
    assert resets_sent(lab) == before
