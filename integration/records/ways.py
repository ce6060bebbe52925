"""The ways in which a connection ends: each makes one end so, and returns the client's address."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, NamedTuple

from integration.services import published
from integration.sockets import PATIENCE_SECONDS, connect, echoes, inside, pair, read_all, reset, udp_from
from integration.udp.servers import WHO
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.model.endings import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userproxy.lab.deployment import Lab

PORT = 7000
NOBODY = 7001
"""A port of pods where nobody listens."""

_BACKEND = Address(SERVER2.ip, PORT)
_RETRY_SECONDS = 5.0


class Scene(NamedTuple):
    """Where it happens.

    Attributes:
        lab: with a daemon on host1.
        listener: of the backend.
        frontend: of the Service `plain`, which has that backend.
    """

    lab: Lab
    listener: socket.socket
    frontend: Address


def address(sock: socket.socket) -> str:
    """Of a client, as the daemon knows it."""
    return str(Address(*sock.getsockname()[:2]))


def client_fin(scene: Scene) -> str:
    client, server = _pair(scene)
    told = address(client)
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b""
    server.close()
    assert read_all(client) == b""
    return told


def backend_fin(scene: Scene) -> str:
    client, server = _pair(scene)
    told = address(client)
    server.shutdown(socket.SHUT_WR)
    assert read_all(client) == b""
    client.close()
    assert read_all(server) == b""
    return told


def client_reset(scene: Scene) -> str:
    client, server = _pair(scene)
    told = address(client)
    reset(client)
    assert _is_reset(server)
    return told


def backend_reset(scene: Scene) -> str:
    client, server = _pair(scene)
    told = address(client)
    reset(server)
    assert _is_reset(client)
    return told


def client_lost(scene: Scene) -> str:
    client, server = _pair(scene)
    with _unplugged(scene.lab, "client", f"tcp sport {client.getsockname()[1]}"):
        server.sendall(b"are you there?")
        assert _is_reset(server)
    return address(client)


def backend_lost(scene: Scene) -> str:
    client, server = _pair(scene)
    with _unplugged(scene.lab, "server2", f"tcp dport {server.getpeername()[1]}"):
        client.sendall(b"are you there?")
        assert _is_reset(client)
    return address(client)


def dial_failed(scene: Scene) -> str:
    pods = [Address(SERVER1.ip, NOBODY), Address(SERVER2.ip, NOBODY)]
    with published(scene.lab, "refuses", "10.3.242.51", pods) as frontend:
        return _reset_one(scene, frontend)


def no_backend(scene: Scene) -> str:
    with published(scene.lab, "held", "10.3.242.52", [], no_endpoints="hold") as frontend:
        client = connect(scene.lab, "client", frontend)
        _wait(scene, client, "waiting")
    assert _is_reset(client)
    return address(client)


def hold_full(scene: Scene) -> str:
    with (
        published(
            scene.lab, "full", "10.3.242.53", [], no_endpoints="hold", hold_connections="1"
        ) as frontend,
        connect(scene.lab, "client", frontend),
    ):
        return _reset_one(scene, frontend)


def hold_expired(scene: Scene) -> str:
    with published(
        scene.lab, "expires", "10.3.242.54", [], no_endpoints="hold", hold_timeout="500ms"
    ) as frontend:
        return _reset_one(scene, frontend)


def client_gone(scene: Scene) -> str:
    with published(scene.lab, "left", "10.3.242.55", [], no_endpoints="hold") as frontend:
        client = connect(scene.lab, "client", frontend)
        _wait(scene, client, "waiting")
        told = address(client)
        client.close()
        return told


def too_many(scene: Scene) -> str:
    with published(scene.lab, "few", "10.3.242.56", [_BACKEND], max_connections_per_client="1") as frontend:
        first, there = pair(scene.lab, frontend, scene.listener)
        with first, there:
            return _reset_one(scene, frontend)


def not_greeted(scene: Scene) -> str:
    with published(
        scene.lab, "behind", "10.3.242.57", [_BACKEND], accept_proxy_protocol="10.0.0.0/14"
    ) as frontend:
        client = connect(scene.lab, "client", frontend)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert _is_reset(client)
        return address(client)


def linger(scene: Scene) -> str:
    client, server = _pair(scene)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    assert _is_reset(client)
    return address(client)


def aged(scene: Scene) -> str:
    with published(scene.lab, "ages", "10.3.242.58", [_BACKEND], max_connection_age="500ms") as frontend:
        client, server = pair(scene.lab, frontend, scene.listener)
        with client, server:
            assert _is_reset(client)
            return address(client)


def backend_removed(scene: Scene) -> str:
    with published(scene.lab, "shrinks", "10.3.242.59", [_BACKEND], close_on_removal="100ms") as frontend:
        client, server = pair(scene.lab, frontend, scene.listener)
    with client, server:
        assert _is_reset(client)
        return address(client)


def killed(scene: Scene) -> str:
    client, _server = _pair(scene)
    (row,) = [row for row in scene.lab.rows("host1", "connections") if row["client"] == address(client)]
    scene.lab.userproxy("host1", "kill", row["id"])
    assert _is_reset(client)
    return address(client)


def idle(scene: Scene) -> str:
    with _datagrams(scene, "10.3.242.60", {"udp-idle": "1s"}) as frontend:
        client = _asked(scene, frontend)
        wait_until("its session is over", lambda: not _live(scene, client), _RETRY_SECONDS)
        return address(client)


def answered(scene: Scene) -> str:
    with _datagrams(scene, "10.3.242.61", {}, port=53) as frontend:
        return address(_asked(scene, frontend))


def evicted(scene: Scene) -> str:
    with _datagrams(scene, "10.3.242.62", {"max-connections": "1"}) as frontend:
        first = _asked(scene, frontend)
        _asked(scene, frontend)
        return address(first)


def listener_closed(scene: Scene) -> str:
    with _datagrams(scene, "10.3.242.63", {}) as frontend:
        return address(_asked(scene, frontend))


WAYS: dict[Reason, Callable[[Scene], str]] = {
    Reason.CLIENT_FIN: client_fin,
    Reason.BACKEND_FIN: backend_fin,
    Reason.CLIENT_RESET: client_reset,
    Reason.BACKEND_RESET: backend_reset,
    Reason.CLIENT_LOST: client_lost,
    Reason.BACKEND_LOST: backend_lost,
    Reason.DIAL_FAILED: dial_failed,
    Reason.NO_BACKEND: no_backend,
    Reason.HOLD_FULL: hold_full,
    Reason.HOLD_EXPIRED: hold_expired,
    Reason.CLIENT_GONE: client_gone,
    Reason.TOO_MANY: too_many,
    Reason.NOT_GREETED: not_greeted,
    Reason.LINGER: linger,
    Reason.AGED: aged,
    Reason.BACKEND_REMOVED: backend_removed,
    Reason.KILLED: killed,
    Reason.IDLE: idle,
    Reason.ANSWERED: answered,
    Reason.EVICTED: evicted,
    Reason.LISTENER_CLOSED: listener_closed,
}
"""By reason, how it comes about; `shutdown` is told by another scenario, and `failed` would be a bug."""


def _pair(scene: Scene) -> tuple[socket.socket, socket.socket]:
    client, server = pair(scene.lab, scene.frontend, scene.listener)
    assert echoes(client, server)
    return client, server


def _reset_one(scene: Scene, frontend: Address) -> str:
    """Connect, and wait for the reset."""
    with inside(scene.lab, "client"), socket.socket() as client:
        client.settimeout(PATIENCE_SECONDS)
        client.bind((CLIENT.ip, 0))
        told = address(client)
        try:
            client.connect((frontend.ip, frontend.port))
        except ConnectionResetError:  # it may be as quick as that
            return told
        assert _is_reset(client)
        return told


def _is_reset(sock: socket.socket) -> bool:
    """Wait for the end; whether that is a reset."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


@contextlib.contextmanager
def _unplugged(lab: Lab, member: str, match: str) -> Iterator[None]:
    """No packet of a connection leaves a member, or gets to it."""
    rules = "".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; {text} drop; }};"
        for hook, text in (("output", match), ("input", _reverse(match)))
    )
    lab.exec(member, "nft", f"table ip unplugged {{ {rules} }}")
    try:
        yield
    finally:
        lab.exec(member, "nft", "delete table ip unplugged")


def _reverse(match: str) -> str:
    return match.replace("sport", "dport") if "sport" in match else match.replace("dport", "sport")


def _live(scene: Scene, client: socket.socket) -> list[str]:
    """The states of its connections."""
    rows = scene.lab.rows("host1", "connections")
    return [row["state"] for row in rows if row["client"] == address(client)]


def _wait(scene: Scene, client: socket.socket, state: str) -> None:
    wait_until(f"it is {state}", lambda: _live(scene, client) == [state], _RETRY_SECONDS)


@contextlib.contextmanager
def _datagrams(scene: Scene, ip: str, said: dict[str, str], port: int = 5000) -> Iterator[Address]:
    """A UDP Service whose pod is the echo server, for the time of the block."""
    name, frontend = f"udp-{ip.rpartition('.')[2]}", Address(ip, port)
    ports = [Port(port, PORT, "", "UDP")]
    metadata = {"annotations": {f"userproxy.dev/{key}": value for key, value in said.items()}}
    text = objects.manifest(
        [
            objects.service(name, [ip], ports, metadata=metadata),  # type: ignore[arg-type]  # a mapping
            objects.endpoint_slice(name, name, ports, [objects.endpoint(SERVER2.ip)]),
        ]
    )
    scene.lab.write_manifest(f"{name}.yaml", text)
    try:
        wait_until(f"{name} is served", lambda: _serves(scene.lab, name), _RETRY_SECONDS)
        yield frontend
    finally:
        scene.lab.remove_manifest(f"{name}.yaml")
        wait_until(f"{name} is gone", lambda: not _serves(scene.lab, name), _RETRY_SECONDS)


def _serves(lab: Lab, name: str) -> bool:
    rows = lab.rows("host1", "services")
    return any(row["service"] == f"default/{name}" and row["backends"] == 1 for row in rows)


def _asked(scene: Scene, frontend: Address) -> socket.socket:
    """A client that has asked, and got its answer."""
    client = udp_from(scene.lab.namespace("client"), frontend, _RETRY_SECONDS)
    client.send(WHO)
    assert client.recv(100)
    return client
