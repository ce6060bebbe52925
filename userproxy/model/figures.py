"""What the daemon measures of itself at one moment, by the names of its gauges. Pure.

A gauge is declared here and nowhere else; those of what has been counted are in `userproxy.model.counters`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from userproxy.model.metric import FAMILY, Metric

_WORKER = ("worker",)
_SYNC = "kubeproxy_sync_proxy_rules_"
BUILD_LABELS = (
    *("build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version"),
    *("major", "minor", "platform"),
)


def _numbers() -> dict[str, int]:
    return msgspec.field(default_factory=dict)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is so at one moment. Fields that are dictionaries have their labels' values for keys."""

    services: Annotated[int, Metric("Service ports.")] = 0
    services_down: Annotated[
        dict[str, int],
        Metric(
            "Service ports that no backend here serves: there is none, each is down, or those that there are "
            "are not for this node.",
            labels=("reason",),
            keys=("no-endpoints", "none-up", "not-here"),
        ),
    ] = _numbers()
    backends: Annotated[
        dict[str, int],
        Metric(
            "Backends by their state now. `removed`: gone, and connections on it live on.",
            labels=("state",),
            keys=("up", "draining", "unused", "down", "ejected", "removed"),
        ),
    ] = _numbers()
    listeners: Annotated[int, Metric("Open listeners.")] = 0
    host_ports: Annotated[
        dict[str, int],
        Metric(
            "Ports of the port range. `occupied`: something else on the node has it.",
            labels=("state",),
            keys=("used", "free", "occupied"),
        ),
    ] = _numbers()
    connections: Annotated[int, Metric("Live connections.")] = 0
    connections_waiting: Annotated[int, Metric("Connections whose Service has no endpoints yet.")] = 0
    problems: Annotated[dict[str, int], Metric("Problems, as in `status`.", labels=("reason",))] = _numbers()
    source_synced: Annotated[bool, Metric("Whether everything has been read at least once.")] = False
    source_stale_seconds: Annotated[float, Metric("How old the source's data may be.")] = 0.0
    ruleset_owned: Annotated[bool, Metric("Whether nobody else can change our rules.")] = False
    workers_wanted: Annotated[int, Metric("Workers that there should be.")] = 0
    workers: Annotated[int, Metric("Workers that answer, those included that retire.")] = 0
    workers_heard: Annotated[int, Metric("Workers whose heartbeat reaches the kernel.")] = 0
    workers_paused: Annotated[int, Metric("Workers that accept nobody for now.")] = 0
    relay_bypassed: Annotated[
        bool,
        Metric("Whether new connections go straight to the pods, or nowhere: no worker accepts them."),
    ] = False
    worker_connections_limit: Annotated[
        dict[str, int], Metric("Connections over which a worker stops accepting.", labels=_WORKER)
    ] = _numbers()
    worker_open_files: Annotated[dict[str, int], Metric("Open files of a worker.", labels=_WORKER)] = (
        _numbers()
    )
    worker_open_files_limit: Annotated[
        dict[str, int], Metric("Files that a worker may have open.", labels=_WORKER)
    ] = _numbers()
    worker_pipes: Annotated[
        dict[str, int], Metric("Pipes of a worker that hold bytes at the moment.", labels=_WORKER)
    ] = _numbers()
    worker_pipes_limit: Annotated[
        dict[str, int], Metric("Pipes over which a worker copies bytes instead.", labels=_WORKER)
    ] = _numbers()
    worker_udp_sessions: Annotated[dict[str, int], Metric("UDP clients of a worker.", labels=_WORKER)] = (
        _numbers()
    )
    worker_udp_sessions_limit: Annotated[
        dict[str, int],
        Metric(
            "UDP clients over which the one that was heard of least recently gives way.",
            labels=_WORKER,
        ),
    ] = _numbers()
    worker_resident_memory_bytes: Annotated[dict[str, int], Metric("Memory of a worker.", labels=_WORKER)] = (
        _numbers()
    )
    no_local_endpoints: Annotated[
        dict[str, int],
        Metric(
            "Service ports under the traffic policy Local that have endpoints, and none on this node.",
            labels=(FAMILY, "traffic_policy"),
            name=f"{_SYNC}no_local_endpoints_total",
            keys=("internal", "external"),
            untyped=True,
        ),
    ] = _numbers()
    service_connections: Annotated[
        dict[str, int], Metric("Live connections of a Service port.", labels=("service",), per_service=True)
    ] = _numbers()
    service_backends: Annotated[
        dict[str, int],
        Metric("Backends of a Service port by their state.", labels=("service", "state"), per_service=True),
    ] = _numbers()
    services_left_out: Annotated[
        int,
        Metric(
            "Service ports that have had connections and are not shown by themselves: others had more.",
            per_service=True,
        ),
    ] = 0


class Moments(msgspec.Struct, kw_only=True):
    """When something happened last, and what has yet to; with the daemon's own identity."""

    last_applied: Annotated[
        dict[str, float],
        Metric("When the last change was applied.", (FAMILY,), f"{_SYNC}last_timestamp_seconds"),
    ] = msgspec.field(default_factory=dict)
    last_queued: Annotated[
        dict[str, float],
        Metric("When the last change came in.", (FAMILY,), f"{_SYNC}last_queued_timestamp_seconds"),
    ] = msgspec.field(default_factory=dict)
    pending_services: Annotated[
        dict[str, int],
        Metric("Changes of Services to apply.", (FAMILY,), f"{_SYNC}service_changes_pending"),
    ] = _numbers()
    pending_endpoints: Annotated[
        dict[str, int],
        Metric("Changes of endpoints to apply.", (FAMILY,), f"{_SYNC}endpoint_changes_pending"),
    ] = _numbers()
    build: Annotated[dict[str, int], Metric("The daemon.", ("version", "mode"), "userproxy_build_info")] = (
        _numbers()
    )
    kubernetes_build: Annotated[
        dict[str, int],
        Metric(
            "The same, as Kubernetes' components have it; what has no meaning here is empty.",
            BUILD_LABELS,
            "kubernetes_build_info",
        ),
    ] = _numbers()
