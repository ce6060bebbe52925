"""The running daemon: from the first sync to the last connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from userproxy import __version__
from userproxy.config import ConfigError
from userproxy.control import handover
from userproxy.control.handover import Handover
from userproxy.control.health_ports import FLAG
from userproxy.control.lag import watch_lag
from userproxy.control.lifetimes import CarriedLifetimes
from userproxy.control.loop import ReconcileLoop
from userproxy.control.relay_watch import LOOK_SECONDS, RelayWatch
from userproxy.control.stopping import following, stop
from userproxy.control.succession.tenure import Left
from userproxy.model.counters import Counters
from userproxy.model.snapshot import Notice
from userproxy.model.state import ToListener
from userproxy.net.addresses import AddressWatch
from userproxy.ops.http.health import Health
from userproxy.ops.http.pages import Pages
from userproxy.ops.http.server import serve_http
from userproxy.sources import status_of
from userproxy.worker.handle import WorkerGoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from userproxy.config import Config
    from userproxy.control.health_ports import HealthPorts
    from userproxy.control.reconcile import Reconciler
    from userproxy.control.sides import Sides
    from userproxy.control.succession.tenure import Tenure
    from userproxy.control.view import View
    from userproxy.model.service import PoolName
    from userproxy.model.snapshot import Snapshot
    from userproxy.ops.http.metrics import Metrics
    from userproxy.sources import Source

log = structlog.get_logger("userproxy")

HEALTHZ_FLAG = "healthz-bind-address"
METRICS_FLAG = "metrics-bind-address"

# Seconds between two looks at whether somebody else has changed our rules.
_REPAIR_SECONDS = 2.0

# Seconds between two looks at which Services netfilter sends to pods.
_USE_SECONDS = 2.0

# How long whoever waits for the daemon to start waits for its source.
_SOURCE_SECONDS = 20.0

# What a probe may wait: less than who probes waits at most.
_PROBE_SECONDS = 0.7

# Signals to the program. They wait while it starts anew: by themselves they would end it.
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
_SIGNAL_SECONDS = 0.01


class StartError(Exception):
    """The daemon cannot start. One line, with the remedy."""


class Parts(NamedTuple):
    """What a daemon is made of.

    Attributes:
        config: what is wanted of it.
        source: of the Services.
        sides: that carry connections.
        reconciler: applies the desired state.
        health_ports: on which load balancers ask for the node's endpoints.
        view: what it shows of itself.
        metrics: what it counts and measures.
    """

    config: Config
    source: Source
    sides: Sides
    reconciler: Reconciler
    health_ports: HealthPorts
    view: View
    metrics: Metrics


class Daemon:
    """The running daemon, from the first sync to the last connection.

    Args:
        parts: what it is made of.
        tenure: how it comes to the node.

    Attributes:
        left: what it has left to another daemon that has asked for the node; None if it has not.
    """

    def __init__(self, parts: Parts, tenure: Tenure) -> None:
        self.left: Left | None = None
        self._config = parts.config
        self._sides = parts.sides
        self._source = parts.source
        self._workers = parts.sides.workers
        self._kernel = parts.sides.kernel
        self._flows = parts.sides.flows
        self._pod_health = parts.sides.pod_health
        self._reconciler = parts.reconciler
        self._health_ports = parts.health_ports
        self._view = parts.view
        self._metrics = parts.metrics
        self._inherited = tenure.inherited
        self._tenure = tenure
        self._announcer = tenure.announcer
        tenure.incumbent.on_request = self._hand_over
        self._listeners: dict[str, socket.socket] = {}
        self._stopping = asyncio.Event()
        self._renewing = False
        self._handing_over = False
        self._told_to_stop = False
        self._settled = False
        self._in_effect = asyncio.Event()
        self._loop = ReconcileLoop(self._reconcile, self._on_failure)

    async def run(self, check: Callable[[], object]) -> bool:
        """Serve what the source says until a signal comes.

        Args:
            check: reads the configuration anew, before SIGHUP has the program start anew with it.

        Returns:
            Whether the program is to be started anew.

        Raises:
            StartError: no worker can be started; nothing has been changed.
            NetfilterError: the kernel refuses our rules; likewise.
            StopError: it has ended, and something of it is left in the kernel.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._renew, check)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        addresses = {
            HEALTHZ_FLAG: self._config.healthz_address,
            METRICS_FLAG: self._config.metrics_address,
        }
        self._listeners = handover.adopt(self._inherited, addresses, kept=FLAG)
        await self._start()
        self._tenure.confirm()
        self._tenure.incumbent.open()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in self._everything()]
            await self._stopping.wait()
            for task in tasks:
                task.cancel()
        if self._handing_over:
            self._announcer.stopping()
            self.left = await self._leave()
            return False
        self._tenure.incumbent.close()
        if self._renewing:
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            await asyncio.sleep(_SIGNAL_SECONDS)  # for one that has come already
        if self._renewing:
            left = await self._leave()
            handover.leave(left.handover.past, left.handover.workers, left.listeners)
            self._announcer.renewing()
            return True
        self._announcer.stopping()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        async with following(self._source, self._reconciler, self._on_failure):
            await stop(self._config, self._sides, self._reconciler.actual)
        return False

    async def _start(self) -> None:
        """Take over from an earlier daemon, or begin with nothing. The kernel comes last: it is seen."""
        try:
            await self._workers.start(self._inherited.workers)
        except (WorkerGoneError, OSError) as error:
            raise StartError(f"no worker can be started: {error}") from None
        try:
            adopted = await self._kernel.start()
        except BaseException:
            self._workers.leave()  # those that serve something go on, as after a crash
            raise
        serves = self._workers.serves
        self._reconciler.adopt(msgspec.structs.replace(adopted, serves=serves))
        served = {(serve.protocol, serve.listener) for serve in serves.values()}
        captures = adopted.captures.items()
        led_to = {(key.protocol, each.listener) for key, each in captures if isinstance(each, ToListener)}
        if led_to and led_to <= served:  # or else the first sync will see to it
            self._workers.hearts.begin()
        log.info(
            "started",
            version=__version__,
            node=self._config.node_name,
            host_ips=self._config.host_ips,
            mode=self._config.mode.value,
            adopted=len(adopted.captures),
        )

    def _everything(self) -> Iterator[Coroutine[object, object, None]]:
        """What goes on until the daemon stops."""
        names = (self._config.node_name, socket.gethostname())
        pages = Pages(self._health, self._view, self._metrics, self._config, names)
        yield self._announce()
        yield self._announcer.beat(lambda: self._health().alive)
        yield self._source.run(self._publish)
        yield self._loop.run()
        yield self._repair()
        yield self._notice_use()
        yield self._watch_relay()
        yield self._watch_addresses()
        yield CarriedLifetimes(self._sides).run(lambda: self._reconciler.snapshot)
        yield watch_lag(self._metrics.lagged)
        yield self._workers.mind(self.notify)
        yield self._sides.crew.mind()
        yield self._health_ports.run(lambda: self._health().healthy, self._listeners, self.notify)
        yield self._answer_probes(pages)
        yield serve_http(self._config.metrics_address, pages.metrics(), METRICS_FLAG, self._listeners)

    async def _leave(self) -> Left:
        """Leave the workers to themselves, and everything to the next daemon."""
        await asyncio.gather(self._workers.count(), self._sides.crew.count())
        # The next daemon has another process choose, and cannot ask this one what it has counted.
        chosen = self._sides.crew.living_counters.values()
        past = Counters.total(self._view.past_counters(), *chosen)
        counted = Handover(past=past, workers=self._workers.living_counters)
        owner = await self._kernel.give()
        sockets = ({handover.RULES: owner} if owner else {}) | self._listeners
        left = Left(counted, sockets, self._workers.pids, self._told_to_stop)
        self._workers.leave()
        self._sides.crew.leave()
        return left

    async def _announce(self) -> None:
        """Say that we are ready: what the source says is in effect, or it is silent and what was is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SOURCE_SECONDS):
                await self._in_effect.wait()
        self._announcer.started()

    async def _answer_probes(self, pages: Pages) -> None:
        """Answer probes until cancelled.

        Those that come while this daemon takes the place of another one wait for a moment rather than hear
        that it is not in step yet.
        """
        if HEALTHZ_FLAG in self._listeners and self._reconciler.snapshot is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._reconciler.settled()
        await serve_http(self._config.healthz_address, pages.probes(), HEALTHZ_FLAG, self._listeners)

    def need_pods(self, pool: PoolName) -> None:
        """Tell that clients wait for a pool to have backends."""
        service = pool.service_port
        message = f"clients of {service} wait for it to have endpoints: scale up what stands behind it"
        log.info("clients wait for endpoints", service=str(service))
        self._source.announce(Notice(str(service), "NeedPods", message))

    def notify(self) -> None:
        """Have the state applied soon: something has changed."""
        self._loop.notify()

    def _renew(self, check: Callable[[], object]) -> None:
        if self._stopping.is_set():
            return
        try:
            check()
        except ConfigError as error:
            log.error("not started anew: the configuration is wrong", error=str(error))  # noqa: TRY400
            return
        log.info("starting anew; the workers go on")
        self._renewing = True
        self._stopping.set()

    def _hand_over(self, version: str) -> bool:
        """Leave the node to another daemon that asks for it; whether it is to have it."""
        if self._stopping.is_set():
            return False
        log.info("handing over to another daemon", version=version)
        self._handing_over = True
        self._stopping.set()
        return True

    def _stop(self) -> None:
        self._told_to_stop = True
        if self._handing_over:
            return
        if self._renewing:
            self._renewing = False
        elif self._stopping.is_set():
            self._workers.end_drain()
            self._flows.end_drain()
        self._stopping.set()

    def _health(self) -> Health:
        now, wall = time.monotonic(), time.time()
        snapshot = self._reconciler.snapshot
        updated, pending = self._loop.last_success, self._loop.pending_since
        return Health(
            now=wall,
            last_updated=None if updated is None or snapshot is None else wall - (now - updated),
            pending_seconds=None if pending is None else now - pending,
            eligible=snapshot is not None and (snapshot.node is None or snapshot.node.eligible),
            source=status_of(self._source),
            families=self._reconciler.families,
        )

    def _publish(self, snapshot: Snapshot) -> None:
        self._loop.notify()
        self._metrics.changed(self._reconciler.snapshot, snapshot)
        self._reconciler.take(snapshot)

    async def _reconcile(self) -> None:
        started = time.monotonic()
        try:
            await self._reconciler.reconcile()
        finally:
            self._source.tell(tuple(self._reconciler.problems))
        self._metrics.applied(time.monotonic() - started)
        self._view.report("")
        if self._reconciler.snapshot is not None:
            self._announcer.serving()
            self._in_effect.set()
        if not self._settled:
            # What lives now lives long: the garbage collector need not look at it again.
            self._settled = True
            gc.collect()
            gc.freeze()

    def _on_failure(self, error: Exception, seconds: float) -> None:
        self._metrics.failed()
        log.error("not everything could be applied", error=str(error), retry_in_seconds=seconds)
        self._view.report(f"not everything could be applied: {error}")

    async def _repair(self) -> None:
        while True:
            await asyncio.sleep(_REPAIR_SECONDS)
            try:
                changed = await self._reconciler.repair()
                if self._reconciler.retry_occupied() or changed:
                    self._loop.notify()
            except Exception as error:  # noqa: BLE001 - told, and tried again
                log.error("the kernel's rules could not be checked", error=str(error))  # noqa: TRY400

    async def _notice_use(self) -> None:
        """Have pods checked that netfilter sends connections to, while it does."""
        while True:
            await asyncio.sleep(_USE_SECONDS)
            if self._pod_health.wants_to_know:
                try:
                    self._pod_health.notice(await self._kernel.used())
                except Exception as error:  # noqa: BLE001 - told, and tried again
                    log.error("pods of Services in use are not checked", error=str(error))  # noqa: TRY400

    async def _watch_relay(self) -> None:
        """Tell when new connections go past the workers, and replace one that hangs."""
        watch = RelayWatch(self._sides)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if await watch.look(self._reconciler.actual):
                    self._reconciler.note_fallen_open(watch.problems)
                    self._loop.notify()
            except Exception as error:  # noqa: BLE001 - told, and tried again
                log.error("it is not known which workers are alive", error=str(error))  # noqa: TRY400

    async def _watch_addresses(self) -> None:
        """Follow the node's addresses, until cancelled."""
        watch = AddressWatch(asyncio.get_running_loop(), self._look_at_address)
        self._look_at_address(addresses=False)  # there was nobody to tell until now
        try:
            await asyncio.Event().wait()
        finally:
            watch.close()

    def _look_at_address(self, *, addresses: bool) -> None:
        if self._reconciler.look_at_address(changed=addresses):
            self._loop.notify()
