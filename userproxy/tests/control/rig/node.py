"""A control side with its neighbours in memory, and what it is told of Services."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from userproxy.config import Config
from userproxy.config.settings import OnStop
from userproxy.control.health_ports import HealthPorts
from userproxy.control.host_address import HostAddress, Surroundings
from userproxy.control.pod_health import PodHealth
from userproxy.control.port_file import HostPorts, PortFile
from userproxy.control.reconcile import OnNode, Reconciler
from userproxy.control.sides import Sides
from userproxy.control.view import View
from userproxy.model.address import Address, family_of
from userproxy.model.counters import Counters
from userproxy.model.counts import BackendCount, ServiceCount
from userproxy.model.endpoint import Endpoint
from userproxy.model.messages import ServiceCounts, Totals
from userproxy.model.rows import SourceStatus
from userproxy.model.service import Path as TrafficPath
from userproxy.model.service import PoolName, Protocol, ServicePort, ServicePortName
from userproxy.model.snapshot import Snapshot
from userproxy.model.state import Frontend
from userproxy.netfilter.conntrack.flows import Flow
from userproxy.netfilter.conntrack.table import FlowTable
from userproxy.tests.control.rig.neighbours import InMemoryCrew, InMemoryKernel, InMemoryWorkers
from userproxy.tests.services import cluster_ips
from userproxy.tests.sockets import Clock, VirtualTimers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from userproxy.model.rows import BackendRow, ServiceRow
    from userproxy.tests.sockets import Sockets

POD1, POD2, POD3 = (Address(f"10.0.{number}.2", 8080) for number in (1, 2, 3))
WEB, CART = ServicePortName("default", "web"), ServicePortName("shop", "cart", "http")
SOURCE = SourceStatus(kind="manifests", synced=True, stale_seconds=0.0)


def config(ports: str = "10400-10999", **settings: object) -> Config:
    """That of a daemon on host1 which opens no port by itself, never falls open, and leaves nothing."""
    fields: dict[str, object] = {
        "manifests": Path("/nowhere"),
        "node_name": "host1",
        "host_ip": "10.100.0.2",
        "port_range": ports,
        "healthz_bind_address": "",
        "metrics_bind_address": "",
        "drain_seconds": 30.0,
        "fall_open": False,
        "on_stop": OnStop.REMOVE,
    }
    return Config(**{**fields, **settings})  # type: ignore[arg-type]  # each has the type of its field


def service(
    name: ServicePortName = WEB,
    *frontends: str,
    path: TrafficPath | None = None,
    protocol: Protocol = Protocol.TCP,
) -> ServicePort:
    """A Service port; by default its address is 10.3.0.1:80."""
    addresses = tuple(map(Address.parse, frontends or ("10.3.0.1:80",)))
    return ServicePort(name=name, protocol=protocol, entries=cluster_ips(*addresses), path=path)


def endpoints(*pods: Address) -> tuple[Endpoint, ...]:
    """Ready ones."""
    return tuple(Endpoint(address=pod, node="host2") for pod in pods)


def snapshot(*services: ServicePort, pods: Collection[Address] = (POD1, POD2)) -> Snapshot:
    """Each of these Services, with all of the pods behind it."""
    return Snapshot({one.name: one for one in services}, {one.name: endpoints(*pods) for one in services})


def many(count: int) -> list[ServicePort]:
    """So many Services."""
    return [
        service(ServicePortName("default", f"service-{number:03}"), f"10.3.1.{number}:80")
        for number in range(count)
    ]


def tcp(frontend: str) -> Frontend:
    """The key of a capture."""
    return Frontend(Protocol.TCP, Address.parse(frontend))


def counts(name: ServicePortName, *backends: BackendCount) -> ServiceCounts:
    """What one worker says of one Service port."""
    live = sum(backend.connections for backend in backends)
    return ServiceCounts(
        services=(ServiceCount(pool=PoolName.of(name), connections=live, backends=backends),)
    )


def totals(connections: int, counters: Counters | None = None) -> Totals:
    """What one worker says of itself."""
    return Totals(connections=connections, counters=counters or Counters())


def count(pod: Address, connections: int, state: str = "up", seconds: float = 0.0) -> BackendCount:
    """What one worker says of one backend."""
    return BackendCount(
        address=pod, connections=connections, latency=None, state=state, seconds=seconds, reason=""
    )


def flow(frontend: str, pod: Address, number: int = 1) -> Flow:
    """A connection that the kernel carries to a pod."""
    client = Address("10.0.1.3", 40000 + number)
    return Flow(
        id=number,
        client=client,
        frontend=tcp(frontend),
        source=client,
        backend=pod,
        state="established",
        started=None,
        idle=1.0,
        bytes_up=0,
        bytes_down=0,
        counted=True,
    )


class ControlSide:
    """Reconciler and view as the daemon has them; the workers and the kernel are in memory.

    Attributes:
        journal: what the neighbours were told, in order.
        addresses: of the node; the last one of a family is its primary.
        flows: the connections that the kernel carries, as conntrack has them.
        source: what the source says of itself.
    """

    def __init__(self, directory: Path, sockets: Sockets, settings: Config | None = None) -> None:
        self.journal: list[str] = []
        self.config = settings or config()
        self.workers = InMemoryWorkers(self.journal)
        self.kernel = InMemoryKernel(self.journal)
        self.flows: list[Flow] = []
        self.clock = Clock()
        pod_health = PodHealth(VirtualTimers().loop, sockets.poller())
        table = FlowTable(self._read_flows, self.clock)
        self.crew = InMemoryCrew()
        self.sides = Sides(self.workers, self.kernel, pod_health, table, self.crew)
        self.ports = HostPorts.load(self.config.ports, PortFile(directory))
        self.counters = Counters()
        self.source = SOURCE
        self.view = View(self.config, self.sides, self.counters, lambda: self.source, self.clock)
        self.addresses = list(self.config.host_ips)
        address = HostAddress(
            self.config,
            lambda family: next((ip for ip in reversed(self.addresses) if family_of(ip) is family), ""),
            lambda ip: ip in self.addresses,
            lambda: Surroundings(tuple(self.addresses), ("eth0",)),
        )
        self.on_node = OnNode(self.ports, address, HealthPorts())
        self.reconciler = Reconciler(self.config, self.sides, self.on_node, self.view)

    async def apply(self, wanted: Snapshot) -> list[str]:
        """Reconcile; returns what the neighbours were told."""
        self.reconciler.take(wanted)
        return await self.again()

    async def again(self) -> list[str]:
        """Reconcile once more."""
        start = len(self.journal)
        await self.reconciler.reconcile()
        return self.journal[start:]

    def problems(self) -> list[str]:
        """What users must know of, as `about: reason`."""
        return [f"{problem.about}: {problem.reason}" for problem in sorted(self.reconciler.problems)]

    def port(self, name: ServicePortName = WEB) -> int:
        """The host port that a Service port is served on; 0 if it has none."""
        serve = self.reconciler.actual.serves.get(PoolName.of(name))
        return serve.listener.port if serve else 0

    async def backends(self, name: ServicePortName = WEB) -> list[tuple[str, str, int]]:
        """Of a Service port: address, state and connections."""
        return [(row.backend, row.state, row.connections) for row in await self.rows(name)]

    async def rows(self, name: ServicePortName = WEB) -> list[BackendRow]:
        """The whole rows."""
        return [row for row in await self.view.backends() if row.service == str(name)]

    async def services(self) -> dict[str, ServiceRow]:
        """The rows of Services, by name."""
        return {row.service: row for row in await self.view.services()}

    async def _read_flows(self, frontends: Iterable[Frontend]) -> list[Flow]:
        asked = set(frontends)
        return [flow for flow in self.flows if not asked or flow.frontend in asked]
