"""The report says what was measured, on what, and what was not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.bench.report import figures, files, markdown
from userproxy.bench.report.record import Missing, Record
from userproxy.tests.bench.record import MACHINE, both, record

if TYPE_CHECKING:
    from pathlib import Path

MISSING = Missing("nginx", "everything", "`nginx` is not installed")
MEASURED = record(
    *both("requests_64", 63_000, 70_000),
    *both("requests_64", 65_000, 65_000, 1),
    *both("first_answer", 0.31, 0.25, services=1),
    missing=(MISSING,),
)
GOLDEN = """\
# userproxy bench

Begun 2026-01-02T03:04:05+00:00, took 61 s.

- 2 CPUs of a virtual machine: Imaginary 9000; 8 GiB
- Linux 6.18.1, Debian GNU/Linux 12 (bookworm), Python 3.11.7
- frequency governor: not visible; load when it began: 0.12

## In short

| path | requests/s |
|---|---:|
| userproxy, redirect to host | x0.95 |
| HAProxy | x1.00 |

## Figures

Medians, in brackets the first and the third quartile, then the ratio to `haproxy`: the median of the ratios \
within each round.

### Requests a second

| path | 64 connections |
|---|---:|
| userproxy, redirect to host | 64,000 (63,500-64,500) x0.95 |
| HAProxy | 67,500 (66,200-68,800) |

### First answer of a new connection, in ms

| path | 1 Service |
|---|---:|
| userproxy, redirect to host | 0.31 x1.24 |
| HAProxy | 0.25 |

## Plots

![Requests](requests.png)

## What ran

| path | `--paths` | version | |
|---|---|---|---|
| userproxy, redirect to host | `redirect-to-host` | userproxy 0.1.0 | one process |
| HAProxy | `haproxy` | HAProxy version 2.6.12 | one thread |

## What could not be measured

- `nginx`, everything: could not be measured: `nginx` is not installed

## How it was measured

"""


def test_the_report_of_a_run() -> None:
    text = markdown.render(MEASURED, "haproxy", [("Requests", "requests.png")], "")
    assert text[: text.index("- Each path has a lab")] == GOLDEN
    assert "Measured in 2 rounds" in text
    assert "3 s a measurement, after 1 s of warm-up" in text


def test_a_report_without_plots_says_why() -> None:
    assert "There are none: no paint." in markdown.render(MEASURED, "haproxy", [], "no paint")


def test_a_busy_machine_is_told_of() -> None:
    busy = record(*both("requests_64", 1, 1), machine=msgspec.structs.replace(MACHINE, load=3.0))
    assert "**The machine was not idle** (load 3.00)" in markdown.render(busy, "haproxy", [], "-")
    assert "not idle" not in markdown.render(MEASURED, "haproxy", [], "-")


def test_a_run_that_measured_nothing_still_has_a_report() -> None:
    text = markdown.render(record(missing=(MISSING,)), "haproxy", [], "nothing")
    assert "could not be measured: `nginx` is not installed" in text
    assert "## In short" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.04512, "0.0451"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.0, "1,230"),
        (65_249.0, "65,200"),
        (999.6, "1000"),
        (1_234_567.0, "1,230,000"),
    ],
)
def test_figures_have_three_digits_that_mean_something(value: float, text: str) -> None:
    assert figures.number(value) == text


def test_the_base_is_the_first_path_where_the_wanted_one_was_not_measured() -> None:
    assert MEASURED.base("haproxy") == "haproxy"
    assert MEASURED.base("nginx") == "redirect-to-host"


def test_report_json_can_be_read_back_whole(tmp_path: Path) -> None:
    files.write(MEASURED, "haproxy", tmp_path)
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Record) == MEASURED


def test_without_matplotlib_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert files.write(MEASURED, "haproxy", tmp_path) == ["report.json", "report.md"]
    assert "matplotlib is not installed" in (tmp_path / "report.md").read_text()


def test_every_kind_of_figure_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = (
        "requests_1",
        "latency_p99",
        "new_connections",
        "throughput_4",
        "cpu_user",
        "cpu_system",
        "memory",
    )
    samples = [one for name in names for round_ in (0, 1) for one in both(name, 1.5, 2.0, round_)]
    samples += [
        one for size in (1, 100) for name in ("first_answer", "change") for one in both(name, 3, 4, 0, size)
    ]
    written = files.write(record(*samples), "haproxy", tmp_path)
    expected = [
        "requests",
        "latency",
        "new-connections",
        "throughput",
        "cpu",
        "memory",
        "first-answer",
        "change",
    ]
    assert written[2:] == [f"{name}.png" for name in expected]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in written[2:])


def test_an_output_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(files.OutputError, match="is no directory: name another one with --output"):
        files.check(tmp_path / "file" / "report")
    files.check(tmp_path / "new" / "report")
    assert not (tmp_path / "new").exists()
