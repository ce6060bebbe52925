"""Clients of a Service notice nothing of what changes beside them, however often that is."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import pytest

from integration.restart.load import Load, Transfer
from integration.services import problems
from integration.sockets import PATIENCE_SECONDS
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import HOST1, HOST2, SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.lab.objects import ServiceSpec

CLUSTER_IP = Address("10.3.240.7", 80)
NODE_PORT = Address(HOST1.ip, 30070)
EXTERNAL_IP, BALANCER_IP = Address("192.0.2.70", 80), Address("192.0.2.80", 80)
ASKED = (("client", CLUSTER_IP), ("host1", EXTERNAL_IP), ("gateway", NODE_PORT), ("gateway", BALANCER_IP))
"""What stays, and who asks there, 50 times a second each: 200 connections a second."""

TIMES = 50
SETTLE_SECONDS = 0.12
"""A little longer than the daemon's pause between two plans."""


class Service:
    """What a user has written down of it, and edits."""

    def __init__(self) -> None:
        self.external = [EXTERNAL_IP.ip, "192.0.2.71"]
        self.ingress = [BALANCER_IP.ip, "192.0.2.81"]
        self.ports = [Port(80, 8080, "web", node_port=NODE_PORT.port)]
        self.pods = ["server1", "server2"]
        self.spec: ServiceSpec = {"type": "LoadBalancer"}
        self.others: list[objects.Object] = []

    @property
    def text(self) -> str:
        """Its objects, as the content of a file."""
        where = {"server1": (SERVER1.ip, HOST1.name), "server2": (SERVER2.ip, HOST2.name)}
        spec: ServiceSpec = {**self.spec, "externalIPs": self.external}
        service = objects.service(
            "busy",
            [CLUSTER_IP.ip],
            self.ports,
            ingress=[{"ip": ip} for ip in self.ingress],
            **spec,
        )
        pods = [objects.endpoint(*where[pod]) for pod in self.pods]
        return json.dumps(
            objects.listed([service, objects.endpoint_slice("busy", "busy", self.ports, pods), *self.others])
        )

    def edits(self) -> Iterator[str]:
        """One edit after another, in circles."""
        while True:
            for edit in (
                self._reorder,
                self._more_addresses,
                self._another_port,
                self._policies,
                self._affinity,
                self._ranges,
                self._pods,
                self._another_service,
            ):
                yield from edit()

    def _reorder(self) -> Iterator[str]:
        self.external.reverse()
        yield "same external IPs"
        self.ingress.reverse()
        yield "same load balancer"

    def _more_addresses(self) -> Iterator[str]:
        self.external.insert(0, "192.0.2.72")
        yield "an external IP more"
        self.ingress.insert(0, "192.0.2.82")
        yield "a load balancer's IP more"
        self.external.remove("192.0.2.72")
        yield "an external IP less"
        self.ingress.remove("192.0.2.82")
        yield "a load balancer's IP less"

    def _another_port(self) -> Iterator[str]:
        for node_port in (30071, 30072, 0):
            self.ports[1:] = [Port(81, 8081, "other", node_port=node_port)]
            yield f"another port, with node port {node_port}"
        self.ports[:] = [Port(79, 8081, "other"), self.ports[0]]
        yield "another port, in front"
        del self.ports[0]
        yield "no other port"

    def _policies(self) -> Iterator[str]:
        self.spec |= {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32070}
        yield "only pods of the node from outside"
        self.spec["internalTrafficPolicy"] = "Local"
        yield "and from inside"
        self.spec = {"type": "LoadBalancer"}
        yield "any pod"

    def _affinity(self) -> Iterator[str]:
        for seconds in (100, 200, 1):
            self.spec |= {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
            }
            yield f"clients keep their pod for {seconds} s"
        self.spec = {"type": "LoadBalancer"}
        yield "clients keep no pod"

    def _ranges(self) -> Iterator[str]:
        for ranges in (["10.0.0.0/8"], ["10.0.0.0/9", "10.100.0.0/24"], ["0.0.0.0/0"], []):
            self.spec["loadBalancerSourceRanges"] = ranges
            yield f"clients in {ranges}"

    def _pods(self) -> Iterator[str]:
        for pods in (["server1"], ["server2", "server1"], ["server1", "server2"]):
            self.pods = pods
            yield f"pods {pods}"

    def _another_service(self) -> Iterator[str]:
        other = objects.service("other", ["10.3.240.8"], [Port(80)], externalIPs=["192.0.2.73"])
        self.others = [other]
        yield "another Service"
        self.others = []
        yield "no other Service"


def listeners(lab: Lab) -> dict[str, str | None]:
    """Where the daemon listens for the port that stays, by policy."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        return {row.policy: row.listener for row in admin.services() if row.service == "default/busy:web"}


def applied(lab: Lab) -> int:
    """How many plans the daemon has applied."""
    return lab.daemon("host1").output().count(" applied ")


@contextlib.contextmanager
def served(lab: Lab, service: Service) -> Iterator[Callable[[], None]]:
    """It is served for the time of the block; gives what publishes an edit of it."""

    def publish() -> None:
        lab.write_manifest("busy.json", service.text)

    publish()
    wait_until("busy is served", lambda: bool(listeners(lab)), PATIENCE_SECONDS)
    try:
        yield publish
    finally:
        lab.remove_manifest("busy.json")
        wait_until("busy is gone", lambda: not listeners(lab), PATIENCE_SECONDS)


def assert_all_answered(loads: Sequence[Load]) -> None:
    for load, (member, address) in zip(loads, ASKED, strict=True):
        print(f"{member} at {address}: {load}")
    assert [load.failed.total() for load in loads] == [0] * len(loads)


@pytest.mark.timeout(120)
def test_fifty_changes_beside_two_hundred_connections_a_second(lab: Lab) -> None:
    service = Service()
    loads = [Load(lab, address, rate=50, threads=2, member=member) for member, address in ASKED]
    with served(lab, service) as publish, contextlib.ExitStack() as stack:
        transfer = Transfer(lab, CLUSTER_IP, pieces=TIMES)
        before, count = listeners(lab), applied(lab)
        for load in loads:
            stack.enter_context(load.going_on())
        needless = []
        for _, edit in zip(range(TIMES), service.edits(), strict=False):
            known = applied(lab)
            publish()
            transfer.some(1)
            time.sleep(SETTLE_SECONDS)
            if edit.startswith("same ") and applied(lab) != known:
                needless.append(edit)
        done = applied(lab) - count
        now = listeners(lab)
        stack.close()
        assert transfer.finish(), "a transfer that was under way is complete"
    assert_all_answered(loads)
    assert needless == [], "an order is no change"
    assert done >= TIMES // 2, "changes were applied, one by one"
    assert now.items() >= before.items(), "the port that stays keeps its listener"
    assert problems(lab) == ()
