"""A small record, made up."""

from __future__ import annotations

from userproxy.bench.machine import Machine
from userproxy.bench.report.record import Missing, PathRecord, Record
from userproxy.bench.samples import Sample
from userproxy.bench.workloads.base import Settings

MACHINE = Machine(
    cpu="Imaginary 9000",
    cpus=2,
    memory_gib=8.0,
    kernel="6.18.1",
    system="Debian GNU/Linux 12 (bookworm)",
    python="3.11.7",
    governor="not visible",
    load=0.12,
    hypervisor=True,
)


def record(*samples: Sample, missing: tuple[Missing, ...] = (), machine: Machine = MACHINE) -> Record:
    """Two paths and what was measured over them."""
    return Record(
        started="2026-01-02T03:04:05+00:00",
        seconds=61.0,
        machine=machine,
        settings=Settings(rounds=2, seconds=3),
        workloads=("r64",),
        paths=(
            PathRecord("redirect-to-host", "userproxy, redirect to host", "userproxy 0.1.0", "one process"),
            PathRecord("haproxy", "HAProxy", "HAProxy version 2.6.12", "one thread"),
        ),
        samples=samples,
        missing=missing,
    )


def both(
    metric: str, ours: float, theirs: float, round_: int = 0, services: int = 0
) -> tuple[Sample, Sample]:
    """A sample of each path in one round."""
    return (
        Sample(path="redirect-to-host", metric=metric, value=ours, round=round_, services=services),
        Sample(path="haproxy", metric=metric, value=theirs, round=round_, services=services),
    )
