"""What `/metrics` shows of one moment: of all workers, the kernel and the Services together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.metric import BETWEEN, declared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from userproxy.control.tally import Tally
    from userproxy.model.address import Address
    from userproxy.model.condition import Condition
    from userproxy.model.counters import Counters
    from userproxy.model.counts import Vitals
    from userproxy.model.figures import Figures
    from userproxy.model.service import ServicePortName

_OF_WORKERS = {
    "worker_connections_limit": "connection_limit",
    "worker_open_files": "files",
    "worker_open_files_limit": "file_limit",
    "worker_pipes": "pipes",
    "worker_pipes_limit": "pipe_limit",
    "worker_udp_sessions": "sessions",
    "worker_udp_sessions_limit": "session_limit",
    "worker_resident_memory_bytes": "resident_bytes",
}
"""By field of `Figures`, that of `Vitals`. One that retires counts with the one that has taken its place."""

_LIMITS = frozenset(field for field in _OF_WORKERS if field.endswith("_limit"))


class Measured(NamedTuple):
    """What is shown.

    Attributes:
        figures: of this moment.
        counters: of all processes, those that are gone included.
    """

    figures: Figures
    counters: Counters


class PortUse(NamedTuple):
    """What the port range is used for.

    Attributes:
        used: by listeners.
        occupied: by something else on the node.
        free: by nobody.
    """

    used: int = 0
    occupied: int = 0
    free: int = 0


def of_workers(vitals: Iterable[Vitals]) -> dict[str, dict[str, int]]:
    """By field of `Figures`, what each worker says."""
    found: dict[str, Counter[str]] = {field: Counter() for field in _OF_WORKERS}
    for each in vitals:
        for field, source in _OF_WORKERS.items():
            of, worker, value = found[field], str(each.worker), getattr(each, source)
            of[worker] = max(of[worker], value) if field in _LIMITS else of[worker] + value
    return {field: dict(of) for field, of in found.items()}


def chosen(counters: Counters, served: Collection[str], most: int) -> list[str]:
    """The Service ports that are shown by themselves: those served now that have had the most connections."""
    opened = counters.service_connections_opened
    return sorted((name for name in opened if name in served), key=lambda name: (-opened[name], name))[:most]


def keep_only(counters: Counters, names: Collection[str]) -> None:
    """Leave out of the counters what is of other Service ports."""
    for one in declared(type(counters)):
        if one.metric.per_service:
            counts: dict[str, int] = getattr(counters, one.field)
            kept = {key: count for key, count in counts.items() if key.partition(BETWEEN)[0] in names}
            setattr(counters, one.field, Counter(kept))


def of_services(
    names: Mapping[str, ServicePortName],
    tally: Tally,
    conditions: Callable[[ServicePortName], Mapping[Address, Condition]],
) -> dict[str, dict[str, int]]:
    """By field of `Figures`, what there is to say of these Service ports."""
    connections = dict.fromkeys(names, 0)
    for pool, count in tally.pools.items():
        name = str(pool.service_port)
        if name in connections:
            connections[name] += count
    backends: Counter[str] = Counter()
    for name, service in names.items():
        for address, condition in conditions(service).items():
            state = condition.state
            if state == "up":
                state = tally.backend(service, address).state
            backends[f"{name}{BETWEEN}{state}"] += 1
    return {"service_connections": connections, "service_backends": dict(backends)}
