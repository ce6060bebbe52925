"""The state that the data side and the kernel are in, or should be in."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from userproxy.model.address import Address, IpFamily
from userproxy.model.service import PoolName, Protocol, ServicePortName, TrafficPolicy
from userproxy.model.settings import Settings


class Backend(msgspec.Struct, frozen=True, order=True):
    """A pod that may be picked for a new connection now: topology has been applied."""

    address: Address
    node: str = ""
    zone: str = ""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """The backends of one Service port for traffic of one family under one policy, and how they are chosen.

    Attributes:
        service: whose traffic it is.
        policy: which endpoints that traffic may reach.
        family: of its addresses.
        backends: in the order of picking; empty while there are none.
        far: that may take over while most of the backends cannot be reached: those of other zones, where
            hints prefer the near ones.
        leaving: pods that exist and take no new connections, told of UDP, and if `settings.close_on_removal`
            asks for it: whoever is neither here nor among the others has been removed.
        settings: what the author of the Service chose.
        affinity: seconds for which a client IP keeps its backend after its last new connection; None: not
            at all.
    """

    service: ServicePortName
    policy: TrafficPolicy = TrafficPolicy.CLUSTER
    family: IpFamily = IpFamily.IPV4
    backends: tuple[Backend, ...] = ()
    far: tuple[Backend, ...] = ()
    leaving: tuple[Address, ...] = ()
    settings: Settings = Settings()
    affinity: float | None = None

    @property
    def name(self) -> PoolName:
        """What tells it from every other pool."""
        return PoolName.of(self.service, self.policy, self.family)


class Serve(Pool, frozen=True, kw_only=True):
    """What the data side does for one Service port: accept on its listener, relay to its backends.

    Attributes:
        listener: the host IP and the Service port's host port, `10.100.0.2:10400`.
        protocol: what is spoken there.
        idle: of UDP: seconds without a datagram after which a client's session is over.
        short: of UDP: a session is over when each question has its answer.
    """

    listener: Address
    protocol: Protocol = Protocol.TCP
    idle: float = 30.0
    short: bool = False


class Steer(Pool, frozen=True, kw_only=True):
    """What a steering process does for one Service port: choose the pod of each new connection.

    The index of a backend, which the kernel is told, is its place among `backends` and then `far`: the same
    as among `pods` and `others` of the captures that lead here.

    Attributes:
        frontends: whose packets it is asked for.
        outside: likewise, of packets from outside alone: those that are marked so (`steering.OUTSIDE`).
        protocol: what is spoken there.
        moving: indices by which the kernel knows another pod, or none, until it has been told: whoever is
            picked and has one of these is not named, and the rules choose.
    """

    frontends: tuple[Address, ...] = ()
    outside: tuple[Address, ...] = ()
    protocol: Protocol = Protocol.TCP
    moving: tuple[int, ...] = ()


class Frontend(msgspec.Struct, frozen=True, order=True, array_like=True, cache_hash=True):
    """The key of a capture: what a packet must be addressed to.

    Attributes:
        protocol: of the packet.
        address: its destination.
        outside: only for packets that come from outside the node and its pods (`Perimeter`). For these, it
            goes before the same frontend without this.
    """

    protocol: Protocol
    address: Address
    outside: bool = False


class ToPods(msgspec.Struct, frozen=True, tag="to-pods"):
    """Rewrite the destination to one of these pods, chosen evenly.

    Attributes:
        pods: never empty.
        masquerade: packets that come in by an uplink, from outside or from a pod of another node, get this
            node's address as their source too, so that the answers of a pod elsewhere come back this way.
        affinity: seconds for which a client IP keeps its pod after its last new connection; None: not at all.
        steered: new connections first ask a steering process, in a netfilter queue; the rules choose while
            there is none.
        others: pods that only a steering process may choose.
        most: new connections are refused while this frontend has so many; None: never.
        most_per_client: likewise while a client IP has so many there.
    """

    pods: tuple[Address, ...]
    masquerade: bool = False
    affinity: float | None = None
    steered: bool = False
    others: tuple[Address, ...] = ()
    most: int | None = None
    most_per_client: int | None = None


class ToListener(msgspec.Struct, frozen=True, tag="to-listener"):
    """Rewrite the destination to our listener.

    Attributes:
        listener: where it is.
        behind: where new connections go while no worker accepts clients; they get this node's address as
            their source, wherever they come from. None: to the listener all the same.
        steered: new connections first ask a steering process, which has them wait; likewise.
    """

    listener: Address
    behind: ToPods | None = None
    steered: bool = False


class Refuse(msgspec.Struct, frozen=True, tag="refuse"):
    """Refuse at once: TCP RST, or ICMP port unreachable."""


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Drop silently: endpoints exist, but the traffic policy forbids them from here."""


Target = ToListener | ToPods | Refuse | Drop


class Perimeter(msgspec.Struct, frozen=True):
    """Where the outside begins: packets that come in by an uplink, but for those from networks of pods.

    Attributes:
        uplinks: names of interfaces, sorted.
        inside: networks of pods in CIDR notation, sorted.
        closed: cluster IPs cannot be reached from outside.
    """

    uplinks: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    closed: bool = True


class NodeState(msgspec.Struct, frozen=True):
    """The state that the data side and the kernel should be in.

    Attributes:
        serves: by pool: those that have a listener.
        captures: by frontend: every frontend of every Service port that is ours.
        guards: every listener of `serves`, with its protocol; a set, in the form in which changes are found.
        flows: by UDP frontend in `captures`: where its flows may lead. Those that began before may stay with
            pods that serve and get no new ones.
        checked: by pool: those whose packets netfilter sends to pods that are to be checked.
        steered: by pool: those whose backends a steering process chooses.
        cluster_ips: those of Services that are ours, a set likewise: a port of theirs that is not captured is
            refused.
        ranges: by frontend in `captures`: the networks, in CIDR notation, whose clients alone may reach it.
        pods: IPs of all pods to which the kernel sends, or may have sent, connections, those included that
            get no new ones; a set likewise.
        perimeter: of this node.
        queues: in how many the packets of the frontends in `steered` wait, each read by a steering process.
        workers: how many accept clients at the listeners: of TCP, one that is alive will do, of UDP all must
            be. 0: new connections go to none of them but where nothing is behind it.
        pools: by frontend in `captures`: the pool that it leads to.
        frontends: by pool, those frontends.
    """

    serves: Mapping[PoolName, Serve] = {}
    captures: Mapping[Frontend, Target] = {}
    guards: Mapping[Frontend, None] = {}
    flows: Mapping[Frontend, tuple[Address, ...]] = {}
    checked: Mapping[PoolName, Pool] = {}
    steered: Mapping[PoolName, Steer] = {}
    cluster_ips: Mapping[str, None] = {}
    ranges: Mapping[Frontend, tuple[str, ...]] = {}
    pods: Mapping[str, None] = {}
    perimeter: Perimeter = Perimeter()
    queues: int = 0
    workers: int = 0
    pools: Mapping[Frontend, PoolName] = {}
    frontends: Mapping[PoolName, tuple[Frontend, ...]] = {}
