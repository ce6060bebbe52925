"""Puts a report into a directory: report.json, report.md and the plots."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import msgspec

from userproxy.bench.report import markdown, plots

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.bench.report.record import Record

NO_MATPLOTLIB = "matplotlib is not installed (`pip install 'userproxy[bench]'` brings it)"


class OutputError(Exception):
    """The report cannot be written there; one line."""


def check(directory: Path) -> None:
    """See, before anything is measured, that the directory can be made and written to. Nothing is made yet.

    Raises:
        OutputError: it cannot.
    """
    nearest = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest} is no directory: name another one with --output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{nearest} cannot be written to: name another directory with --output")


def write(record: Record, base: str, directory: Path) -> list[str]:
    """Write all files; returns their names.

    Raises:
        OutputError: one cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        drawn: list[tuple[str, str]] = []
        reason = NO_MATPLOTLIB
        with contextlib.suppress(ImportError):
            drawn = plots.draw(record, base, directory)
            reason = "nothing was measured that could be drawn"
        (directory / "report.md").write_text(markdown.render(record, base, drawn, reason))
    except OSError as error:
        raise OutputError(
            f"{error.filename}: {error.strerror}: name another directory with --output"
        ) from None
    return ["report.json", "report.md", *(file for _, file in drawn)]
