"""What passes between the control side and the data side, and nothing else does.

They are processes of their own: the control side may be busy, or gone, without a byte waiting for it. Each
order is answered by any number of parts and then by `Done`, all with the order's serial number.
"""

from __future__ import annotations

import msgspec

from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.counts import ServiceCount, Vitals
from userproxy.model.endings import Reason
from userproxy.model.filter import ConnectionFilter, RecordFilter
from userproxy.model.heritage import Judgement, Pin, SessionState
from userproxy.model.records import RecordRow
from userproxy.model.rows import ConnectionRow
from userproxy.model.service import PoolName
from userproxy.model.state import Serve, Steer


class Order(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From control to a worker.

    Attributes:
        serial: unique among the orders to one worker.
    """

    serial: int = 0


class Start(Order, frozen=True, kw_only=True):
    """The first order to any process: how to work.

    Attributes:
        orphan_seconds: how long to go on without a control side; None for ever.
        log_format: as in the configuration.
        log_level: as in the configuration.
        recorded: connections that are over and remembered.
        access_log: as in the configuration.
        access_log_file: its path, for messages; the file itself comes with `LogTo`. Empty: stderr.
        by_service: whether single Services are counted too.
    """

    orphan_seconds: float | None
    log_format: str
    log_level: str
    recorded: int = 0
    access_log: str = "off"
    access_log_file: str = ""
    by_service: bool = False


class Begin(Start, frozen=True, kw_only=True):
    """To a worker.

    Attributes:
        index: the place among the workers, from 0; where in the rotation of backends it begins.
        workers: how many there are; each has its part of the limits that Services set.
        max_connections: over this many, accepting waits until one ends.
        max_pipes: over this many, bytes are copied instead of spliced.
        max_sessions: UDP clients at once; over this many, the one that was heard of least recently gives way.
        linger: seconds without a byte on a half-closed connection before it is given up.
        name: what the ids of its connections begin with; 0 for its pid.
    """

    index: int
    max_connections: int
    max_pipes: int
    linger: float
    workers: int = 1
    max_sessions: int = 1000
    name: int = 0


class Beat(Order, frozen=True, kw_only=True):
    """Say to the kernel from now on that clients are accepted. The socket for that comes along."""


class Vouch(Order, frozen=True, kw_only=True):
    """Have connections come from clients' own addresses where a Service asks for it.

    The sockets to say so to the kernel come along, one for each family that there is.
    """


class Apply(Order, frozen=True, kw_only=True):
    """Serve these Service ports, and stop accepting for those.

    Attributes:
        serves: new ones, and ones whose backends changed.
        opens: the Service ports whose listening sockets come with this message, in their order.
        closes: Service ports to stop accepting for; their connections live on.
    """

    serves: tuple[Serve, ...] = ()
    opens: tuple[PoolName, ...] = ()
    closes: tuple[PoolName, ...] = ()


class ListConnections(Order, frozen=True, kw_only=True):
    """Answered by `ConnectionListing`."""

    wanted: ConnectionFilter


class ListRecords(Order, frozen=True, kw_only=True):
    """Answered by `RecordListing`."""

    wanted: RecordFilter


class KeepRecords(Order, frozen=True, kw_only=True):
    """Remember connections of a worker that is gone, as it told them in `Records`."""

    records: tuple[bytes, ...]


class LogTo(Order, frozen=True, kw_only=True):
    """Write the access log to the file that comes along, from now on."""


class SetLogLevel(Order, frozen=True, kw_only=True):
    """Log from this severity on, as in the configuration."""

    level: str


class Kill(Order, frozen=True, kw_only=True):
    """Reset connections. Answered by `Killed`.

    Attributes:
        numbers: of the connections to reset, whichever the filter leaves of them; None for all.
        wanted: what they must have.
    """

    numbers: tuple[int, ...] | None = None
    wanted: ConnectionFilter = ConnectionFilter()


class Count(Order, frozen=True, kw_only=True):
    """Answered by `ServiceCounts` and one `Totals`."""


class Retire(Order, frozen=True, kw_only=True):
    """Accept no more, and exit once the last connection has ended."""


class Drain(Order, frozen=True, kw_only=True):
    """Accept no more, give connections this time, reset the others, and exit. Answered by `Drained`."""

    seconds: float


class LearnPins(Order, frozen=True, kw_only=True):
    """Take over where clients of a pool are pinned to, as other workers have it."""

    pool: PoolName
    pins: tuple[Pin, ...]


class ListPins(Order, frozen=True, kw_only=True):
    """Answered by `Pins`, and by a steering process with `Judgements` too."""


class LearnJudgements(Order, frozen=True, kw_only=True):
    """Take over what another process has found of backends of a pool."""

    pool: PoolName
    backends: tuple[Judgement, ...]


class YieldSessions(Order, frozen=True, kw_only=True):
    """Take no more datagrams of clients, and give up their sessions. Answered by `Sessions`."""


class InheritSessions(Order, frozen=True, kw_only=True):
    """Go on with these once their listeners are opened; the sockets come with this message, in this order."""

    sessions: tuple[SessionState, ...]


class BeginSteering(Start, frozen=True, kw_only=True):
    """To a steering process.

    Attributes:
        queue: the number of its netfilter queue, which it does not read yet.
    """

    queue: int


class SteerPools(Order, frozen=True, kw_only=True):
    """Choose for new connections to these, and no longer for those.

    Attributes:
        steers: new ones, and ones that have changed.
        stops: that are steered no longer; their connections live on.
    """

    steers: tuple[Steer, ...] = ()
    stops: tuple[PoolName, ...] = ()


class ReadQueue(Order, frozen=True, kw_only=True):
    """Answer for packets from now on.

    The socket of the queue comes along if another process has had it; otherwise it opens one.
    """


class Ending(Order, frozen=True, kw_only=True):
    """The control side is about to end these connections; or it has not, and others may end them.

    Attributes:
        flows: their keys (`model.flow_key`).
        reason: why; None: they have not been ended, after all.
    """

    flows: tuple[bytes, ...]
    reason: Reason | None = None


class YieldQueue(Order, frozen=True, kw_only=True):
    """Answer for no more packets, and give up the queue.

    Answered by `Pins` that nobody has been told of, `Judgements`, and `Queue`.
    """


class Part(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From a worker to control: a part of the answer to the order of that serial number."""

    serial: int = 0


class Hello(Part, frozen=True, kw_only=True):
    """What a worker says first, to whoever becomes its control side.

    Attributes:
        pid: of the worker.
        holds: how many Service ports it serves; they follow, in `Holds`.
        name: what the ids of its connections begin with; 0 for its pid.
        beats: it says to the kernel that it accepts clients, all that are captured.
    """

    pid: int
    holds: int
    name: int = 0
    beats: bool = False


class Holds(Part, frozen=True, kw_only=True):
    """What a worker serves; the listening sockets come with this message, in this order."""

    serves: tuple[Serve, ...]


class Leaving(Part, frozen=True, kw_only=True):
    """Somebody has asked the worker to end, by SIGTERM. It works on until it is told to retire."""


class ConnectionListing(Part, frozen=True, kw_only=True):
    """Some rows of the listing."""

    rows: tuple[ConnectionRow, ...]


class RecordListing(Part, frozen=True, kw_only=True):
    """Some connections with all that is known of them."""

    rows: tuple[RecordRow, ...]


class Records(Part, frozen=True, kw_only=True):
    """Some connections that are over, as they are kept. Told unasked by a worker that is about to end."""

    records: tuple[bytes, ...]


class Pins(Part, frozen=True, kw_only=True):
    """Where some clients of a pool are pinned to. Also told unasked, for the other workers to learn."""

    pool: PoolName
    pins: tuple[Pin, ...]


class Judgements(Part, frozen=True, kw_only=True):
    """What is known of some backends of a pool. Also told unasked, when they are ejected or come back."""

    pool: PoolName
    backends: tuple[Judgement, ...]


class Outage(Part, frozen=True, kw_only=True):
    """Which backends of a pool are down, or ejected. Told unasked, when that changes."""

    pool: PoolName
    backends: tuple[Address, ...]


class NeedPods(Part, frozen=True, kw_only=True):
    """Clients wait for a pool to have backends. Told unasked, when the first comes, and from time to time."""

    pool: PoolName


class Sessions(Part, frozen=True, kw_only=True):
    """Some sessions that a worker gives up; their sockets come with this message, in this order."""

    sessions: tuple[SessionState, ...]


class Queue(Part, frozen=True, kw_only=True):
    """The socket of a netfilter queue comes with this message: packets wait there."""


class ServiceCounts(Part, frozen=True, kw_only=True):
    """Some of the Service ports."""

    services: tuple[ServiceCount, ...]


class Totals(Part, frozen=True, kw_only=True):
    """A worker as a whole.

    Attributes:
        connections: live ones.
        waiting: those among them whose Service has no endpoints yet.
        paused: why accepting waits, or empty.
        full: why new clients had better go elsewhere, or empty.
        counters: what it has counted since it started.
        vitals: what it has and takes; None from an earlier version.
    """

    connections: int
    waiting: int = 0
    paused: str = ""
    full: str = ""
    counters: Counters = msgspec.field(default_factory=Counters)
    vitals: Vitals | None = None


class Drained(Part, frozen=True, kw_only=True):
    """How many connections were reset because their time was over."""

    cut: int


class Killed(Part, frozen=True, kw_only=True):
    """How many connections were reset."""

    count: int


class Done(Part, frozen=True, kw_only=True):
    """The order has been applied; no further part follows.

    Attributes:
        error: what failed, or empty.
    """

    error: str = ""


Orders = (
    Begin
    | Beat
    | Vouch
    | Apply
    | ListConnections
    | ListRecords
    | KeepRecords
    | LogTo
    | SetLogLevel
    | Kill
    | Count
    | Retire
    | Drain
    | LearnPins
    | ListPins
    | LearnJudgements
    | YieldSessions
    | InheritSessions
    | BeginSteering
    | SteerPools
    | ReadQueue
    | Ending
    | YieldQueue
)
Parts = (
    Hello
    | Holds
    | Leaving
    | NeedPods
    | Outage
    | Pins
    | Judgements
    | Sessions
    | Queue
    | ConnectionListing
    | RecordListing
    | Records
    | ServiceCounts
    | Totals
    | Drained
    | Killed
    | Done
)
