"""Services of every kind for the relay to be missed by, and who asks them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING

from integration.restart.load import workers
from integration.sockets import connect, udp_from
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import HOST1, HOST2, REFERENCE, SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.lab.objects import Object

TARGET, NODE_PORT = 7100, 30091
OPEN = Address("10.3.240.21", 90)
OPEN6 = Address("fd00:10:3:240::21", 90)
EXTERNAL, EXTERNAL6 = Address("192.0.2.95", 90), Address("2001:db8::95", 90)
AT_NODE, AT_NODE6 = Address(HOST1.ip, NODE_PORT), Address(HOST1.ip6, NODE_PORT)
LOOPBACK = Address("127.0.0.1", NODE_PORT)
SHUT = Address("10.3.240.22", 90)
STICKY = Address("10.3.240.23", 90)

ASKED = {
    "client": (OPEN, OPEN6, EXTERNAL, EXTERNAL6, AT_NODE, AT_NODE6),
    "host1": (OPEN, OPEN6, EXTERNAL, EXTERNAL6, AT_NODE, AT_NODE6),
    "gateway": (EXTERNAL, EXTERNAL6, AT_NODE, AT_NODE6),
}
"""By member of the lab, the entries that are open to it."""

AS_NODE = frozenset({HOST1.ip, HOST1.ip6, HOST1.bridge_ip, HOST1.bridge_ip6})
"""Whom pods see: the node, be it the relay or a masqueraded client."""

SHORT = 3.0
"""Who gets no answer for so long gets none."""


def written(lab: Lab) -> None:
    """Write them."""
    ports = [Port(90, TARGET, protocol.lower(), protocol, node_port) for protocol, node_port in PORTS.items()]
    plain = [Port(90, TARGET)]
    shut: objects.Metadata = {"annotations": {"userproxy.dev/fall-open": "false"}}
    found = [
        objects.service(
            "open",
            [OPEN.ip, OPEN6.ip],
            ports,
            type="NodePort",
            externalIPs=[EXTERNAL.ip, EXTERNAL6.ip],
        ),
        *_slices("open", ports, ipv6=True),
        objects.service("shut", [SHUT.ip], plain, metadata=shut),
        *_slices("shut", plain),
        objects.service("sticky", [STICKY.ip], plain, sessionAffinity="ClientIP"),
        *_slices("sticky", plain),
    ]
    lab.write_manifest("open.json", json.dumps(objects.listed(found)))


PORTS = {"TCP": NODE_PORT, "UDP": NODE_PORT}


def _slices(name: str, ports: list[Port], *, ipv6: bool = False) -> Iterable[Object]:
    for number, attribute in enumerate(("ip", "ip6")[: 1 + ipv6]):
        endpoints = [
            objects.endpoint(getattr(pod, attribute), host.name)
            for pod, host in ((SERVER1, HOST1), (SERVER2, HOST2))
        ]
        yield objects.endpoint_slice(f"{name}-{number}", name, ports, endpoints)


def started(lab: Lab, *options: str, under: Sequence[str] = ()) -> None:
    """A daemon on host1 that serves all of them."""
    lab.start_daemon("host1", *options, under=under)
    names = {"default/open:tcp", "default/open:udp", "default/shut", "default/sticky"}
    wait_until(
        "they are served", lambda: names <= {row["service"] for row in lab.rows("host1", "services")}, 10
    )


def processes(lab: Lab) -> list[int]:
    """The daemon on host1, and its workers."""
    return [lab.daemon("host1").pid, *workers(lab)]


def signalled(pids: Iterable[int], number: signal.Signals) -> None:
    """Send all of them a signal."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def ask(lab: Lab, member: str, address: Address, protocol: str = "TCP") -> tuple[str, str]:
    """The pod that answers, and whom it sees."""
    made = (
        connect(lab, member, address, SHORT)
        if protocol == "TCP"
        else udp_from(lab.namespace(member), address, SHORT)
    )
    with made as client:
        if protocol == "UDP":
            client.send(b"who?")
        pod, _, seen = client.recv(100).decode().partition(" ")
    return pod.partition(":")[0], seen


def answers(lab: Lab, member: str, address: Address) -> bool:
    """Whether anybody does."""
    with contextlib.suppress(OSError):
        return bool(ask(lab, member, address))
    return False


def seconds_until_answered(lab: Lab) -> float:
    """How long it takes until a pod gets an answer again."""
    began = time.monotonic()
    wait_until("pods answer", lambda: answers(lab, "client", OPEN), 10.0)
    return time.monotonic() - began


def is_relayed(lab: Lab) -> bool:
    """Whether a new connection goes to a worker."""
    with connect(lab, "client", OPEN, SHORT) as client:
        client.recv(100)
        host, port = client.getsockname()
        rows = lab.rows("host1", "connections", "--service", "default/open:tcp")
    found = [row for row in rows if row["client"] == f"{host}:{port}"]
    return [row["path"] for row in found] == ["redirect-to-host"]


class Asking:
    """Clients that ask without a pause, each by a connection of its own.

    Attributes:
        answered: how many were.
        failures: what happened to the others.
        slowest: seconds that one took.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.slowest = 0.0


@contextlib.contextmanager
def asking(lab: Lab) -> Iterator[Asking]:
    """A pod, the node and the gateway ask for the time of the block."""
    found, over = Asking(), threading.Event()

    def go_on(member: str, address: Address) -> None:
        while not over.is_set():
            began = time.monotonic()
            try:
                ask(lab, member, address)
                found.answered += 1
            except OSError as error:
                found.failures.append(f"{member}: {error!r}")
            found.slowest = max(found.slowest, time.monotonic() - began)
            over.wait(0.01)

    askers = (("client", OPEN), ("host1", OPEN6), ("gateway", AT_NODE))
    threads = [threading.Thread(target=go_on, args=each) for each in askers]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


def asked_everywhere(lab: Lab) -> None:
    """Every entry answers, by TCP and UDP, and the pods see the node."""
    assert REFERENCE.gateway_ip not in AS_NODE
    for member, addresses in ASKED.items():
        for address in addresses:
            for protocol in PORTS:
                pod, seen = ask(lab, member, address, protocol)
                assert pod in ("server1", "server2")
                assert seen in AS_NODE, (member, address, protocol)
