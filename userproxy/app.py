"""The composition root: builds every layer, wires them, and takes them down in order."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import time
from typing import TYPE_CHECKING

import msgspec
import structlog
import uvloop

from userproxy import __version__
from userproxy.by_hand import Operator
from userproxy.config import ConfigError
from userproxy.control import Control, Ports, Sides
from userproxy.dataplane.health.carried import CarriedPods
from userproxy.dataplane.poller import Poller
from userproxy.logs import configure_logging
from userproxy.model.messages import Begin
from userproxy.model.plan import CaptureChange, Refuse
from userproxy.model.rows import SourceStatus
from userproxy.netfilter.conntrack.table import FlowTable
from userproxy.netfilter.kernel import Kernel
from userproxy.ops.admin import serve_admin
from userproxy.ops.http.health import Health
from userproxy.ops.http.metrics import Metrics
from userproxy.ops.http.server import Pages, serve_http
from userproxy.ops.node_lock import NodeLock
from userproxy.ops.portfile import PortFile
from userproxy.ops.view import View
from userproxy.planner.ports import PortBook
from userproxy.planner.sync import Reconciler
from userproxy.sources.manifests import ManifestSource
from userproxy.worker.crew import Crew
from userproxy.worker.member import WorkerGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.config import Config
    from userproxy.model.address import Address
    from userproxy.model.snapshot import Snapshot
    from userproxy.sources import Source

log = structlog.get_logger("userproxy")

# Seconds between two looks at whether somebody else has changed our rules.
_REPAIR_SECONDS = 2.0

# Seconds between two looks at which Services netfilter sends to pods.
_USE_SECONDS = 2.0

# Signals to the program. They wait while it starts anew: by themselves they would end it.
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
_SIGNAL_SECONDS = 0.01

# What the control side needs of the file descriptors, however few there are. A connection holds two of them,
# and this share of the others is for connections. The pipes have a smaller one, the rest is for listeners.
_RESERVED_FILES = 60
_CONNECTIONS_SHARE = 0.45
_PIPES_SHARE = 0.02


class StartError(Exception):
    """The daemon cannot start. One line, with the remedy."""


def run(config: Config, check: Callable[[], object]) -> bool:
    """Run the daemon until a signal ends it.

    Args:
        config: what is wanted of it.
        check: reads the configuration anew, before SIGHUP has the program start anew with it.

    Returns:
        Whether the program is to be started anew: on SIGHUP. The workers go on meanwhile, so that no client
        notices, and the new control side takes over from them.

    Raises:
        StartError: it cannot start; nothing has been changed.
        NodeLockError: another one is at work on this node.
        AdminSocketError: the admin socket cannot be opened.
        NetfilterError: the kernel refuses our rules.
    """
    configure_logging(config.log_format, config.log_level)
    with NodeLock(), Kernel(config.host_ip) as kernel:
        missing = kernel.missing_features()
        if missing:
            raise StartError(missing[0])
        return uvloop.run(_serve(config, kernel, check))


def raise_file_limit() -> int:
    """Allow as many open files as the system grants; the limit is never lowered, and nothing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def _serve(config: Config, kernel: Kernel, check: Callable[[], object]) -> bool:
    files = raise_file_limit()
    crew = Crew(
        config.worker_count,
        Begin(
            index=0,
            max_connections=max(1, int((files - _RESERVED_FILES) * _CONNECTIONS_SHARE)),
            max_pipes=max(1, int(files * _PIPES_SHARE)),
            linger=config.linger_seconds,
            orphan_seconds=config.orphan_seconds,
            log_format=config.log_format.value,
            log_level=config.log_level.value,
        ),
    )
    source = await _open_source(config)
    loop = asyncio.get_running_loop()
    poller = Poller()
    poller.attach(loop)
    carried = CarriedPods(loop, poller)
    flows = FlowTable(kernel.flows, _is_listener(config), time.time)
    view = View(config, crew, carried, flows, lambda: _source_status(source), time.time)
    sides = Sides(crew, kernel, carried, flows)
    control = Control(config, sides, _ports(config), view)
    daemon = Daemon(config, control, sides, view, source)
    carried.on_change = daemon.notify
    operator = Operator(control, crew, view, daemon.notify)
    async with serve_admin(config.admin_socket, view, operator):
        try:
            return await daemon.run(check)
        finally:
            carried.close()
            poller.shut()


async def _open_source(config: Config) -> Source:
    """The source that the configuration names.

    Raises:
        StartError: it is not there, or its credentials cannot be read.
    """
    proxy_name = config.service_proxy_name or None
    if config.manifests is not None:
        try:
            return ManifestSource(config.manifests, service_proxy_name=proxy_name)
        except FileNotFoundError as error:
            raise StartError(f"{error.filename}: {error.strerror}") from None
    # It takes up to a second and 73 MB, which only those pay who use it.
    from userproxy.sources.kubernetes.source import KubeconfigError, KubernetesSource  # noqa: PLC0415

    source = KubernetesSource(config.kubeconfig, node_name=config.node_name, service_proxy_name=proxy_name)
    try:
        await source.check()
    except KubeconfigError as error:
        raise StartError(str(error)) from None
    return source


def _is_listener(config: Config) -> Callable[[Address], bool]:
    """Tells whether an address may be one of our listeners."""
    host_ip, ports = config.host_ip, config.ports
    return lambda address: address.ip == host_ip and address.port in ports


def _source_status(source: Source) -> SourceStatus:
    return SourceStatus(
        kind=source.kind, synced=source.synced, stale_seconds=round(source.stale_seconds(), 3)
    )


def _ports(config: Config) -> Ports:
    file = PortFile(config.state_dir)
    saved: object = {}
    try:
        saved = file.read()
    except OSError as error:
        log.warning("host ports cannot be read back", file=str(file.path), error=error.strerror)
    book, complaints = PortBook.load(config.ports, saved)
    for complaint in complaints:
        log.warning("a saved host port is ignored", file=str(file.path), error=complaint)
    return Ports(book, file)


class Daemon:
    """The running daemon, from the first sync to the last connection.

    Args:
        config: what is wanted of it.
        control: the control side.
        sides: that carry connections.
        view: what it shows of itself.
        source: of the Services.
    """

    def __init__(self, config: Config, control: Control, sides: Sides, view: View, source: Source) -> None:
        self._config = config
        self._control = control
        self._crew = sides.crew
        self._kernel = sides.kernel
        self._flows = sides.flows
        self._carried = sides.carried
        self._view = view
        self._source = source
        self._stopping = asyncio.Event()
        self._renewing = False
        self._settled = False
        self._reconciler = Reconciler(self._reconcile, self._on_failure)
        self._metrics = Metrics(config.mode.value)

    async def run(self, check: Callable[[], object]) -> bool:
        """Serve what the source says until a signal comes; see `run` above."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._renew, check)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        pages = Pages(self._health, self._view.figures, self._metrics, self._config.mode)
        adopted = await self._kernel.start()
        await self._start_workers()
        self._control.adopt(msgspec.structs.replace(adopted, serves=self._crew.serves))
        log.info(
            "started",
            version=__version__,
            node=self._config.node_name,
            host_ip=self._config.host_ip,
            mode=self._config.mode.value,
            adopted=len(adopted.captures),
        )
        async with asyncio.TaskGroup() as group:
            tasks = (
                group.create_task(self._source.run(self._publish)),
                group.create_task(self._reconciler.run()),
                group.create_task(self._repair()),
                group.create_task(self._notice_use()),
                group.create_task(self._crew.mind()),
                group.create_task(
                    serve_http(self._config.healthz_address, pages.probes(), "healthz-bind-address")
                ),
                group.create_task(
                    serve_http(self._config.metrics_address, pages.metrics(), "metrics-bind-address")
                ),
            )
            await self._stopping.wait()
            for task in tasks:
                task.cancel()
        if self._renewing:
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            await asyncio.sleep(_SIGNAL_SECONDS)  # for one that has come already
        if self._renewing:
            self._crew.leave()
            return True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        await self._shut_down()
        return False

    async def _start_workers(self) -> None:
        try:
            await self._crew.start()
        except (WorkerGoneError, OSError) as error:
            raise StartError(f"no worker can be started: {error}") from None

    def notify(self) -> None:
        """Have the state carried out soon: something has changed."""
        self._reconciler.notify()

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

    def _stop(self) -> None:
        if self._renewing:
            self._renewing = False
        elif self._stopping.is_set():
            self._crew.hurry()
            self._flows.hurry()
        self._stopping.set()

    def _health(self) -> Health:
        now, wall = time.monotonic(), time.time()
        snapshot = self._control.snapshot
        updated, pending = self._reconciler.last_success, self._reconciler.pending_since
        return Health(
            now=wall,
            last_updated=None if updated is None or snapshot is None else wall - (now - updated),
            pending_seconds=None if pending is None else now - pending,
            eligible=snapshot is not None and (snapshot.node is None or snapshot.node.eligible),
            source=_source_status(self._source),
        )

    def _publish(self, snapshot: Snapshot) -> None:
        self._reconciler.notify()
        self._metrics.changed(self._control.snapshot, snapshot)
        self._control.take(snapshot)

    async def _reconcile(self) -> None:
        started = time.monotonic()
        try:
            await self._control.reconcile()
        finally:
            self._source.tell(tuple(self._control.problems))
        self._metrics.carried_out(time.monotonic() - started)
        self._view.report("")
        if not self._settled:
            # What lives now lives long: the garbage collector need not look at it again.
            self._settled = True
            gc.collect()
            gc.freeze()

    def _on_failure(self, error: Exception, seconds: float) -> None:
        self._metrics.failed()
        log.error("not everything could be carried out", error=str(error), retry_in_seconds=seconds)
        self._view.report(f"not everything could be carried out: {error}")

    async def _repair(self) -> None:
        while True:
            await asyncio.sleep(_REPAIR_SECONDS)
            try:
                await self._control.repair()
                if self._control.retry_occupied():
                    self._reconciler.notify()
            except Exception as error:  # noqa: BLE001 - told, and tried again
                log.error("the kernel's rules could not be checked", error=str(error))  # noqa: TRY400

    async def _notice_use(self) -> None:
        """Have pods checked that netfilter sends connections to, while it does."""
        while True:
            await asyncio.sleep(_USE_SECONDS)
            if self._carried.wants_to_know:
                try:
                    self._carried.notice(await self._kernel.used())
                except Exception as error:  # noqa: BLE001 - told, and tried again
                    log.error("pods of Services in use are not checked", error=str(error))  # noqa: TRY400

    async def _shut_down(self) -> None:
        log.info("stopping", drain_seconds=self._config.drain_seconds)
        # New clients are refused: not captured, they would be sent on to wherever a route for Service IPs
        # leads, and wait there. The table itself stays until the connections are over: without any nat chain,
        # the kernel would stop translating their packets.
        await self._kernel.apply(CaptureChange(put=dict.fromkeys(self._control.actual.captures, Refuse())))
        seconds = self._config.drain_seconds
        cut, left = await asyncio.gather(
            self._crew.drain(seconds), self._flows.drain(seconds, self._control.actual.captures)
        )
        await self._kernel.remove()
        log.info("stopped", connections_cut=cut, connections_left_to_the_kernel=left)
