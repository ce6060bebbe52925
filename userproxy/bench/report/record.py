"""The record of one run: everything that report.json holds, and all that the report is made of. Pure."""

from __future__ import annotations

import msgspec

from userproxy.bench.machine import Machine
from userproxy.bench.samples import Sample
from userproxy.bench.workloads.base import Settings

FORMAT = 1


class PathRecord(msgspec.Struct, frozen=True):
    """A path that was measured.

    Attributes:
        name: as on the command line.
        title: for people.
        version: of the program behind it; may be empty.
        note: what a reader of its figures should know.
    """

    name: str
    title: str
    version: str
    note: str


class Missing(msgspec.Struct, frozen=True):
    """What could not be measured.

    Attributes:
        path: its name.
        what: the workload, or `everything`.
        reason: one line.
    """

    path: str
    what: str
    reason: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        started: ISO 8601, UTC.
        seconds: that it took.
        machine: that it ran on.
        settings: how much was measured.
        workloads: their names.
        paths: that were measured, in the order of the report.
        samples: every single value.
        missing: what could not be measured.
        format: of this struct.
    """

    started: str
    seconds: float
    machine: Machine
    settings: Settings
    workloads: tuple[str, ...]
    paths: tuple[PathRecord, ...]
    samples: tuple[Sample, ...]
    missing: tuple[Missing, ...]
    format: int = FORMAT

    def base(self, wanted: str) -> str:
        """The path that others are compared with: the wanted one, else the first that was measured."""
        names = [path.name for path in self.paths]
        return wanted if wanted in names else names[0]
