"""What these scenarios are made of: drained and silent pods, and clients with a watch."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from typing import TYPE_CHECKING

from integration.programs import running
from integration.sockets import inside
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.model.rows import BackendRow

REQUEST = b"GET / HTTP/1.0\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def drained(lab: Lab, *backends: str) -> Iterator[list[str]]:
    """Pods that are drained for the time of the block; yields what was said of each."""
    with contextlib.ExitStack() as undo:
        said = []
        for backend in backends:
            said.append(lab.userproxy("host1", "drain", backend))
            undo.callback(lab.userproxy, "host1", "drain", "--undo", backend)
        yield said


def backend_rows(lab: Lab, name: str) -> list[BackendRow]:
    """The backends of a Service, as host1's daemon sees them."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        return [row for row in admin.backends() if row.service == f"default/{name}"]


def states(lab: Lab, name: str) -> dict[str, str]:
    """Their states, by address."""
    return {row.backend: row.state for row in backend_rows(lab, name)}


@contextlib.contextmanager
def server(lab: Lab, member: str, port: int) -> Iterator[Address]:
    """A web server more in a pod, for the time of the block."""
    name = f"{member}-{port}"
    argv = (sys.executable, "-m", "userproxy.lab.pods.webserver", name, str(port))
    with running(lab, name, member, port, *argv):
        yield Address(next(pod.ip for pod in lab.deployment.pods if pod.name == member), port)


@contextlib.contextmanager
def silent(lab: Lab, member: str, *ports: int) -> Iterator[None]:
    """A pod drops every packet to these ports, for the time of the block, as one behind a broken network."""
    listed = ",".join(map(str, ports))
    rule = f"type filter hook input priority 0; tcp dport {{ {listed} }} drop;"
    lab.exec(member, "nft", f"table ip silence {{ chain in {{ {rule} }}; }}")
    try:
        yield
    finally:
        lab.exec(member, "nft", "delete table ip silence")


def begin_connecting(lab: Lab, frontend: Address, count: int) -> list[socket.socket]:
    """So many clients whose connections may be there or not: nothing is waited for."""
    clients = []
    with inside(lab, "client"):
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)  # noqa: FBT003 - takes no keyword
            client.connect_ex((frontend.ip, frontend.port))
            clients.append(client)
    return clients


def ask(frontend: Address, timeout: float = 10.0) -> float:
    """Seconds from connecting to the answer's first byte. Called inside of the client's namespace.

    Raises:
        OSError: the connection failed, or was cut before any answer.
    """
    began = time.perf_counter()
    with socket.create_connection((frontend.ip, frontend.port), timeout) as client:
        client.sendall(REQUEST)
        if not client.recv(65536):
            raise ConnectionResetError("the connection ended without an answer")
    return time.perf_counter() - began


def ask_often(lab: Lab, frontend: Address, count: int) -> tuple[list[float], int]:
    """Ask one after another; how long each took, and how many failed."""
    took, failed = [], 0
    with inside(lab, "client"):
        for _ in range(count):
            try:
                took.append(ask(frontend))
            except OSError:
                failed += 1
    return took, failed


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many of all do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def told(values: Sequence[float]) -> str:
    """The median and the 99th percentile, in milliseconds."""
    return f"p50 {percentile(values, 0.5) * 1000:.2f} ms, p99 {percentile(values, 0.99) * 1000:.2f} ms"
