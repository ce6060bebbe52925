"""The composition root: builds every layer, wires them, and takes them down in order."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from typing import TYPE_CHECKING, NamedTuple

import structlog
import uvloop

from userproxy.control import handover
from userproxy.control.announcer import Announcer
from userproxy.control.daemon import Daemon, Parts, StartError
from userproxy.control.health_ports import HealthPorts
from userproxy.control.host_address import HostAddress, Surroundings
from userproxy.control.node_lock import NodeLock
from userproxy.control.operator import Operator
from userproxy.control.pod_health import PodHealth
from userproxy.control.port_file import HostPorts, PortFile
from userproxy.control.reconcile import OnNode, Reconciler
from userproxy.control.record_file import RecordFile
from userproxy.control.sides import Sides
from userproxy.control.succession.early import followed
from userproxy.control.succession.heir import Heir
from userproxy.control.succession.incumbent import Incumbent
from userproxy.control.succession.tenure import Tenure
from userproxy.control.view import View
from userproxy.logs import configure_logging
from userproxy.model.counters import Counters
from userproxy.model.messages import Begin, BeginSteering
from userproxy.model.steering import FIRST_QUEUE
from userproxy.net.poller import Poller
from userproxy.netfilter.conntrack.table import FlowTable
from userproxy.netfilter.kernel import Kernel
from userproxy.ops.admin.server import serve_admin
from userproxy.ops.http.metrics import Metrics
from userproxy.sources import status_of
from userproxy.sources.decode import Scope
from userproxy.sources.manifests import ManifestSource
from userproxy.worker import privileges
from userproxy.worker.origin import processes
from userproxy.worker.pool import WorkerPool
from userproxy.worker.steering.crew import Crew, steering_processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.config import Config
    from userproxy.control.succession.tenure import Left
    from userproxy.sources import Source

log = structlog.get_logger(__name__)

# What the control side needs of the file descriptors, however few there are. A connection holds two of them,
# and this share of the others is for connections. The pipes have a smaller one, the rest is for listeners.
# Sessions of UDP clients hold one each, and take theirs from the share of the connections.
_RESERVED_FILES = 60
_CONNECTIONS_SHARE = 0.45
_PIPES_SHARE = 0.02
_SESSIONS_SHARE = 0.25
_MOST_SESSIONS = 32768


class Resources(NamedTuple):
    """What a daemon has before it has the node.

    Attributes:
        kernel: our part of its state.
        source: of the Services.
        counters: of this process.
    """

    kernel: Kernel
    source: Source
    counters: Counters


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
        StopError: it has ended, and something of it is left in the kernel.
        NodeLockError: another one is at work on this node.
        AdminSocketError: the admin socket cannot be opened.
        NetfilterError: the kernel refuses our rules; nothing has been changed.
    """
    configure_logging(config.log_format, config.log_level)
    for warning in config.warnings:
        log.warning(warning)
    _keep_privileges()
    lock = NodeLock()
    if not config.take_over:
        lock.acquire()
    try:
        return uvloop.run(_serve(config, lock, check))
    finally:
        lock.release()


def _keep_privileges() -> None:
    """Keep what the control side needs.

    Raises:
        StartError: the kernel refuses to take the rest.
    """
    try:
        kept = privileges.keep(privileges.CONTROL)
    except privileges.PrivilegesError as error:
        raise StartError(str(error)) from None
    missing = privileges.OWN_USER - kept
    if os.geteuid() == 0 and missing:
        log.warning(
            "workers run as root, without capabilities: for users of their own, grant these",
            capabilities=sorted(f"CAP_{each.name}" for each in missing),
        )


def raise_file_limit() -> int:
    """Allow as many open files as the system grants; the limit is never lowered, and nothing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def _serve(config: Config, lock: NodeLock, check: Callable[[], object]) -> bool:
    """Serve until a signal comes, or an heir; returns whether to start anew."""
    incumbent, announcer = Incumbent(), Announcer(os.environ, config.ready_file)
    counters = Counters()
    with Kernel(config.host_ips, counters) as kernel:
        missing = kernel.missing_features()
        if missing:
            raise StartError(missing[0])
        async with followed(await open_source(config, counters)) as source:
            heir = Heir(lock, announcer)
            inherited = await heir.come_to_the_node(lambda: source.has_spoken)
            if inherited is None:
                return heir.is_to_renew
            kernel.inherit(handover.take_rules(inherited))
            counters.merge(inherited.past)
            tenure = Tenure(inherited, heir.confirm, incumbent, announcer)
            resources = Resources(kernel, source, counters)
            renew, left = await _work(config, resources, tenure, check)
        if left is None:
            return renew
        lock.release()
        return await incumbent.hand_over(left, config.drain_seconds, is_kept=config.take_over)


async def _work(
    config: Config, resources: Resources, tenure: Tenure, check: Callable[[], object]
) -> tuple[bool, Left | None]:
    """Have the node; returns whether to start anew, and what is left to an heir if there is one."""
    kernel, source, counters = resources
    files = raise_file_limit()
    workers = WorkerPool(
        config.worker_count,
        Begin(
            index=0,
            max_connections=max(1, int((files - _RESERVED_FILES) * _CONNECTIONS_SHARE)),
            max_pipes=max(1, int(files * _PIPES_SHARE)),
            max_sessions=config.udp_sessions or min(max(1, int(files * _SESSIONS_SHARE)), _MOST_SESSIONS),
            linger=config.linger_seconds,
            orphan_seconds=config.orphan_seconds,
            recorded=-(-config.recorded_connections // config.worker_count),
            access_log=config.access_log.value,
            access_log_file=str(config.access_log_file or ""),
            log_format=config.log_format.value,
            log_level=config.log_level.value,
            by_service=config.metrics_per_service > 0,
        ),
        processes(),
    )
    crew = Crew(
        BeginSteering(
            queue=FIRST_QUEUE,
            orphan_seconds=config.orphan_seconds,
            log_format=config.log_format.value,
            log_level=config.log_level.value,
            recorded=config.recorded_connections,
            access_log=config.access_log.value,
            access_log_file=str(config.access_log_file or ""),
            by_service=config.metrics_per_service > 0,
        ),
        steering_processes(),
    )
    loop = asyncio.get_running_loop()
    poller = Poller()
    poller.attach(loop)
    pod_health = PodHealth(loop, poller)
    flows = FlowTable(kernel.flows, time.time)
    sides = Sides(workers, kernel, pod_health, flows, crew)
    view = View(config, sides, counters, lambda: status_of(source), time.time)
    ports = HostPorts.load(config.ports, PortFile(config.state_dir))
    host = kernel.host
    address = HostAddress(config, surroundings=lambda: Surroundings(host.addresses(), host.uplinks()))
    on_node = OnNode(ports, address, HealthPorts())
    reconciler = Reconciler(config, sides, on_node, view)
    metrics = Metrics(
        config.mode.value,
        counters,
        lambda: reconciler.families,
        per_service=config.metrics_per_service > 0,
    )
    parts = Parts(config, source, sides, reconciler, on_node.health_ports, view, metrics)
    daemon = Daemon(parts, tenure)
    pod_health.on_change = daemon.notify
    workers.on_need = daemon.need_pods
    crew.on_need = daemon.need_pods
    crew.recall = reconciler.steering.pins
    crew.bequeath = workers.recollection.keep
    workers.outages.on_change = daemon.notify
    operator = Operator(reconciler, sides, view, daemon.notify)
    remembered = RecordFile(config.state_dir)
    workers.recollection.unclaimed += remembered.take()
    async with serve_admin(config.admin_socket, view, operator):
        try:
            return await daemon.run(check), daemon.left
        finally:
            remembered.leave([*workers.recollection.unclaimed, *crew.recollection.unclaimed])
            pod_health.close()
            poller.shut()


async def open_source(config: Config, counters: Counters | None = None) -> Source:
    """The source that the configuration names.

    Args:
        config: of the daemon.
        counters: of this process.

    Raises:
        StartError: it is not there, or its credentials cannot be read.
    """
    scope = Scope(config.service_proxy_name or None, config.external_ips)
    if config.manifests is not None:
        try:
            return ManifestSource(config.manifests, scope=scope)
        except FileNotFoundError as error:
            raise StartError(f"{error.filename}: {error.strerror}") from None
    # It takes up to a second and 73 MB, which only those pay who use it.
    from userproxy.sources.kubernetes.source import KubeconfigError, KubernetesSource  # noqa: PLC0415

    source = KubernetesSource(config.kubeconfig, node_name=config.node_name, scope=scope, counters=counters)
    try:
        await source.check()
    except KubeconfigError as error:
        raise StartError(str(error)) from None
    return source
