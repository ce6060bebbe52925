"""What a process has counted since it started. The counts of several processes add up. Pure.

A counter is declared here and nowhere else: where it is counted, it is a field; over the processes it is
merged field by field; and `/metrics` takes its name, help and labels from the annotation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Annotated, Self, TypeVar

import msgspec

from userproxy.model.endings import Reason
from userproxy.model.metric import (
    FAMILY,
    DialSeconds,
    Histogram,
    Metric,
    ProgrammingSeconds,
    RequestSeconds,
)

_KUBE_PROXY = "kubeproxy_"
_SYNC = "kubeproxy_sync_proxy_rules_"
_H = TypeVar("_H", bound=Histogram)

_DIAL_ERRORS = ("refused", "timeout", "reset", "unreachable", "other")


def _counts() -> Counter[str]:
    return msgspec.field(default_factory=Counter)


def _times(kind: type[_H]) -> defaultdict[str, _H]:
    return msgspec.field(default_factory=lambda: defaultdict(kind))


class Counters(msgspec.Struct, omit_defaults=True, kw_only=True):
    """All that is counted, in a worker or in the control process.

    A field that is a dictionary counts by the values of its labels. The metric has the field's name with
    `userproxy_` before it, unless the annotation gives one.
    """

    connections_opened: Annotated[int, Metric("Connections accepted, and steered ones chosen for.")] = 0
    connections_ended: Annotated[
        dict[str, int],
        Metric("Connections over, by why they ended.", labels=("reason",), keys=tuple(Reason)),
    ] = _counts()
    relayed_bytes: Annotated[
        dict[str, int],
        Metric(
            "Bytes of clients, up to their backends and down from them; of a steered one when it is over, if "
            "the kernel counts them (`nf_conntrack_acct`).",
            labels=("direction",),
            keys=("up", "down"),
        ),
    ] = _counts()
    clients_turned_away: Annotated[int, Metric("Clients with too many connections.")] = 0
    clients_held: Annotated[int, Metric("Clients that waited for a Service to have endpoints.")] = 0
    dial_seconds: Annotated[DialSeconds, Metric("How long backends took to answer a dial.")] = msgspec.field(
        default_factory=DialSeconds
    )
    failed_dials: Annotated[
        dict[str, int],
        Metric("Backends that could not be reached.", labels=("reason",), keys=_DIAL_ERRORS),
    ] = _counts()
    retried_dials: Annotated[
        dict[str, int],
        Metric(
            "Failed dials that were followed by another; `hedged`: slow ones that got another beside them.",
            labels=("reason",),
            keys=(*_DIAL_ERRORS, "hedged"),
        ),
    ] = _counts()
    backend_sources: Annotated[
        dict[str, int],
        Metric(
            "Dials for Services with `source-address: client`, by whose address they came from.",
            labels=("source",),
            keys=("client", "node"),
        ),
    ] = _counts()
    accept_pauses: Annotated[
        dict[str, int],
        Metric(
            "How often a worker stopped accepting: it had as many connections as it may, or the system had "
            "no more files or memory.",
            labels=("reason",),
            keys=("limit", "resources"),
        ),
    ] = _counts()
    datagrams_dropped: Annotated[
        dict[str, int],
        Metric(
            "Datagrams of clients and pods that were not passed on.",
            labels=("reason",),
            keys=("buffer-full", "no-backend", "not-sent", "out-of-files", "stopping", "too-long"),
        ),
    ] = _counts()
    backend_changes: Annotated[
        dict[str, int],
        Metric(
            "Backends that came to be in this state, as a process found them.",
            labels=("state",),
            keys=("up", "down", "ejected"),
        ),
    ] = _counts()
    health_checks: Annotated[
        dict[str, int], Metric("Active checks.", labels=("outcome",), keys=("passed", "failed"))
    ] = _counts()
    heartbeats: Annotated[int, Metric("Heartbeats that workers have sent to the kernel.")] = 0
    worker_restarts: Annotated[
        dict[str, int],
        Metric(
            "Workers that another one has taken the place of: they died, or were told to go.",
            labels=("reason",),
            keys=("died", "replaced"),
        ),
    ] = _counts()
    worker_cpu_time: Annotated[
        dict[str, int],
        Metric(
            "Processor time of workers, user and system, by their places.",
            labels=("worker",),
            name="userproxy_worker_cpu_seconds",
            nanoseconds=True,
        ),
    ] = _counts()
    loop_lag: Annotated[
        dict[str, Histogram],
        Metric(
            "How late an event loop was for a timer: everything else waited as long.",
            labels=("process",),
            name="userproxy_loop_lag_seconds",
            keys=("control", "worker"),
        ),
    ] = _times(Histogram)
    service_connections_opened: Annotated[
        dict[str, int],
        Metric(
            "Connections accepted for a Service port, and steered ones chosen for.",
            labels=("service",),
            per_service=True,
        ),
    ] = _counts()
    service_relayed_bytes: Annotated[
        dict[str, int],
        Metric(
            "Bytes of a Service port's clients; of a steered one when it is over, if the kernel counts them.",
            labels=("service", "direction"),
            per_service=True,
        ),
    ] = _counts()
    service_failed_connections: Annotated[
        dict[str, int],
        Metric(
            "Connections of a Service port that did not end in order.", labels=("service",), per_service=True
        ),
    ] = _counts()
    access_log_dropped: Annotated[int, Metric("Lines of the access log that were not written.")] = 0
    sync_failures: Annotated[int, Metric("How often not everything could be applied.")] = 0
    sync_times: Annotated[
        dict[str, Histogram],
        Metric("How long it took to apply what had changed.", (FAMILY,), f"{_SYNC}duration_seconds"),
    ] = _times(Histogram)
    full_sync_times: Annotated[
        dict[str, Histogram],
        Metric(
            "The same, of the first time after a start, and of those that follow a failure.",
            (FAMILY,),
            f"{_KUBE_PROXY}sync_full_proxy_rules_duration_seconds",
        ),
    ] = _times(Histogram)
    partial_sync_times: Annotated[
        dict[str, Histogram],
        Metric(
            "The same, of all other times.",
            (FAMILY,),
            f"{_KUBE_PROXY}sync_partial_proxy_rules_duration_seconds",
        ),
    ] = _times(Histogram)
    programming_times: Annotated[
        dict[str, ProgrammingSeconds],
        Metric(
            "From a change of a pod or Service, as its EndpointSlice tells it, until it is in effect here.",
            (FAMILY,),
            f"{_KUBE_PROXY}network_programming_duration_seconds",
        ),
    ] = _times(ProgrammingSeconds)
    changed_services: Annotated[
        dict[str, int], Metric("Changes of Services.", (FAMILY,), f"{_SYNC}service_changes")
    ] = _counts()
    changed_endpoints: Annotated[
        dict[str, int], Metric("Changes of endpoints.", (FAMILY,), f"{_SYNC}endpoint_changes")
    ] = _counts()
    nftables_failures: Annotated[
        dict[str, int],
        Metric(
            "How often the kernel refused a change of our rules.",
            (FAMILY,),
            f"{_SYNC}nftables_sync_failures",
        ),
    ] = _counts()
    conntrack_times: Annotated[
        dict[str, Histogram],
        Metric(
            "How long it took to have conntrack forget flows that lead where they no longer should.",
            (FAMILY,),
            f"{_KUBE_PROXY}conntrack_reconciler_sync_duration_seconds",
        ),
    ] = _times(Histogram)
    conntrack_deleted: Annotated[
        dict[str, int],
        Metric("Those flows.", (FAMILY,), f"{_KUBE_PROXY}conntrack_reconciler_deleted_entries"),
    ] = _counts()
    healthz: Annotated[
        dict[str, int],
        Metric("Answers of /healthz.", ("code",), f"{_KUBE_PROXY}proxy_healthz", keys=("200", "503")),
    ] = _counts()
    livez: Annotated[
        dict[str, int],
        Metric("Answers of /livez.", ("code",), f"{_KUBE_PROXY}proxy_livez", keys=("200", "503")),
    ] = _counts()
    api_requests: Annotated[
        dict[str, int],
        Metric(
            "Requests to the API server; the code is `<error>` where there was no answer.",
            ("code", "method", "host"),
            "rest_client_requests",
        ),
    ] = _counts()
    api_times: Annotated[
        dict[str, RequestSeconds],
        Metric(
            "How long the API server took to begin its answer.",
            ("verb", "host"),
            "rest_client_request_duration_seconds",
        ),
    ] = _times(RequestSeconds)

    def merge(self, other: Counters) -> None:
        """Add what another process has counted."""
        for field in self.__struct_fields__:
            mine, theirs = getattr(self, field), getattr(other, field)
            if isinstance(mine, Histogram):
                mine.merge(theirs)
            elif isinstance(mine, dict):
                for kind, count in theirs.items():
                    if isinstance(count, Histogram):
                        mine.setdefault(kind, type(count)()).merge(count)
                    else:
                        mine[kind] = mine.get(kind, 0) + count
            else:
                setattr(self, field, mine + theirs)

    @classmethod
    def total(cls, *parts: Counters) -> Self:
        """The sum; the parts stay as they are."""
        total = cls()
        for part in parts:
            total.merge(part)
        return total
