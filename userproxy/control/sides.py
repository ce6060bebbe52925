"""What carries connections, as the control process uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from userproxy.model.flow_key import flow_key

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

    from userproxy.control.pod_health import PodHealth
    from userproxy.model.actions import CaptureChange
    from userproxy.model.address import Address
    from userproxy.model.counters import Counters
    from userproxy.model.endings import Reason
    from userproxy.model.filter import ConnectionFilter, RecordFilter
    from userproxy.model.messages import Parts
    from userproxy.model.records import RecordRow
    from userproxy.model.rows import ConnectionRow
    from userproxy.model.service import PoolName
    from userproxy.model.state import Frontend, NodeState, Serve, Steer
    from userproxy.netfilter.bypass.claims import Taker
    from userproxy.netfilter.conntrack.flows import Flow
    from userproxy.netfilter.conntrack.table import FlowTable
    from userproxy.netfilter.elements.pins import Kept
    from userproxy.netfilter.ending.ending import Ended
    from userproxy.worker.outages import Outages


class Hearts(Protocol):
    """What says to the kernel that workers accept clients: `userproxy.worker.hearts.Hearts`."""

    @property
    def beating(self) -> frozenset[int]:
        """The workers that the kernel should hear, by their places."""

    def begin(self) -> None:
        """Have all workers beat from now on."""

    async def fullness_of(self, index: int, seconds: float, /) -> str | None:
        """Why a worker has clients go elsewhere, as it says itself; None if it does not answer in time."""

    def end(self, index: int, /) -> None:
        """End a worker at once; another one takes its place."""


class Workers(Protocol):
    """The data side: `userproxy.worker.pool.WorkerPool`, whose docstrings say what each call does."""

    @property
    def serves(self) -> dict[PoolName, Serve]:
        """What the workers serve."""

    @property
    def behind(self) -> frozenset[PoolName]:
        """The Service ports that a worker failed to take over as they are wanted."""

    @property
    def outages(self) -> Outages:
        """The backends that workers have found down."""

    @property
    def hearts(self) -> Hearts:
        """By which they say to the kernel that they accept clients."""

    @property
    def recollection(self) -> Recollection:
        """What the workers know of connections, those included that are over."""

    @property
    def living_counters(self) -> dict[int, Counters]:
        """What the workers that live have counted, by name."""

    @property
    def past_counters(self) -> Counters:
        """What workers have counted that are gone."""

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of workers that can be seen from here."""

    async def start(self, known: Mapping[int, Counters] | None = None) -> None:
        """Take over from earlier workers."""

    async def mind(self, fell_behind: Callable[[], object], /) -> None:
        """Replace workers that die, until cancelled."""

    async def serve(self, serves: Iterable[Serve], /) -> dict[PoolName, OSError]:
        """Open listeners, and take over new backends on open ones."""

    async def close(self, names: Sequence[PoolName], /) -> None:
        """Stop accepting for these Service ports."""

    def connections(self, wanted: ConnectionFilter, /) -> AsyncIterator[list[ConnectionRow]]:
        """The live connections that match."""

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter, /) -> int:
        """Reset connections; returns how many."""

    def set_log_level(self, level: str, /) -> None:
        """Have all workers, those to come included, log from this severity on."""

    async def count(self) -> list[Parts]:
        """What is known of the Service ports now."""

    async def drain(self, seconds: float, /) -> int:
        """Stop accepting, give connections this time, and end all workers."""

    def end_drain(self) -> None:
        """Give connections no more time."""

    def leave(self) -> None:
        """Leave the workers to themselves."""


class Crew(Protocol):
    """What chooses for connections that the kernel carries: `userproxy.worker.steering.crew.Crew`."""

    @property
    def past_counters(self) -> Counters:
        """What processes have counted that are gone."""

    @property
    def living_counters(self) -> dict[int, Counters]:
        """What the process that lives has counted, by name."""

    @property
    def recollection(self) -> Recollection:
        """What is known of connections that are over."""

    async def expect(self, flows: Collection[bytes], reason: Reason | None, /) -> None:
        """These are about to be ended, for this reason."""

    async def steer(self, wanted: Mapping[PoolName, Steer], /) -> None:
        """Have these chosen for, and no others."""

    async def mind(self) -> None:
        """Replace a process that dies, or does not answer, until cancelled."""

    def set_log_level(self, level: str, /) -> None:
        """Have it, and those to come, log from this severity on."""

    async def count(self) -> list[Parts]:
        """What is known of the Service ports now."""

    def leave(self) -> None:
        """Leave it to itself."""

    async def stop(self) -> None:
        """End it."""


class Recollection(Protocol):
    """`userproxy.worker.recollection.Recollection`."""

    def records(self, wanted: RecordFilter, /) -> AsyncIterator[list[RecordRow]]:
        """The connections that match, live or over."""


class Kernel(Protocol):
    """What netfilter and the routes do for us: `userproxy.netfilter.kernel.Kernel`."""

    async def give(self) -> socket.socket | None:
        """The socket that owns our table, for whoever comes next."""

    @property
    def owned(self) -> bool:
        """Whether nobody else can change our table."""

    @property
    def can_queue(self) -> bool:
        """Whether packets can wait for a steering process; known once it has started."""

    @property
    def can_limit(self) -> bool:
        """Whether limits hold where packets are sent straight to pods; likewise."""

    async def start(self) -> NodeState:
        """Adopt what an earlier daemon left."""

    async def apply(self, change: CaptureChange, /) -> None:
        """Change captures, atomically."""

    async def move(self, host_ips: Collection[str], /) -> None:
        """Have the host's own connections to Service IPs come from other addresses."""

    async def forget_redirected(self, listeners: Collection[Address], /) -> None:
        """Forget the flows to listeners that are no more."""

    async def forget(self, frontends: Mapping[Frontend, Collection[Address]], /) -> None:
        """Forget UDP flows, and of TCP those from before a capture."""

    async def end(self, flows: Collection[Flow], /) -> Ended:
        """End connections that netfilter carries."""

    async def alive(self) -> frozenset[int]:
        """The workers whose hearts beat, by their places."""

    async def pins(self) -> list[Kept]:
        """The pods that clients with affinity keep, as far as it has sent them there."""

    async def used(self) -> set[Frontend]:
        """The frontends from which a new connection has been sent to a pod lately."""

    async def repair(self) -> tuple[str, ...]:
        """Put back what somebody else has changed of ours."""

    async def bypassed(self) -> Mapping[Frontend, Taker]:
        """The captured frontends whose connections somebody else takes before us."""

    async def remove(self) -> None:
        """Leave no trace."""


async def end_carried(sides: Sides, flows: Collection[Flow], reason: Reason) -> Ended:
    """End connections that netfilter carries; who remembers them is told why.

    Raises:
        NetfilterError: they cannot be ended.
    """
    keys = {flow.id: flow_key(flow.frontend.protocol, flow.client, flow.frontend.address) for flow in flows}
    await sides.crew.expect(keys.values(), reason)
    ended: frozenset[int] = frozenset()
    try:
        done = await sides.kernel.end(flows)
        ended = done.ended | done.halves
        return done
    finally:
        left = [key for number, key in keys.items() if number not in ended]
        if left:
            await sides.crew.expect(left, None)


class Sides(NamedTuple):
    """What carries connections.

    Attributes:
        workers: the data side: connections that are relayed.
        kernel: what it captures for us.
        pod_health: the checks of pods that netfilter sends connections to by itself.
        flows: these connections.
        crew: what chooses for those that are steered.
    """

    workers: Workers
    kernel: Kernel
    pod_health: PodHealth
    flows: FlowTable
    crew: Crew
