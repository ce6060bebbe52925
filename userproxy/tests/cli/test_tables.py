"""Units that a person reads, and tables that fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from userproxy.cli.connections import COLUMNS
from userproxy.cli.tables import broken, grid, printable, terminal_table
from userproxy.model.human import human_age, human_bytes
from userproxy.tests.ops.daemon import connection

KIB, MIB, GIB = 1024, 1024**2, 1024**3
HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (KIB, "1.0KiB"),
        (10 * KIB - 1, "10KiB"),
        (1023 * KIB, "1023KiB"),
        (MIB - 1, "1.0MiB"),
        (1_258_291, "1.2MiB"),
        (34 * MIB, "34MiB"),
        (5 * GIB // 2, "2.5GiB"),
        (GIB * KIB, "1.0TiB"),
        (3 * GIB * MIB, "3PiB"),
    ],
)
def test_bytes(count: int, told: str) -> None:
    assert human_bytes(count) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1.0, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60.0, "1m0s"),
        (192.4, "3m12s"),
        (HOUR - 1.0, "59m59s"),
        (5 * HOUR + 180.0, "5h3m"),
        (DAY - 1.0, "23h59m"),
        (2 * DAY + 4 * HOUR, "2d4h"),
    ],
)
def test_ages(seconds: float, told: str) -> None:
    assert human_age(seconds) == told


def test_a_cell_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed") == "a?[2Jb?c?d"
    assert printable("") == "-"


@pytest.mark.parametrize(
    ("text", "breaks", "width", "lines"),
    [
        ("default/web:http", "/:", 20, ["default/web:http"]),
        ("default/web:http", "/:", 12, ["default/web:", "http"]),
        ("default/web:http", "/:", 8, ["default/", "web:http"]),
        ("default/web:http", "", 8, ["default/", "web:http"]),
        ("default/web:http", "/:", 5, ["defau", "lt/", "web:", "http"]),
        ("check the selector", " ", 9, ["check the", "selector"]),
        ("-", "/:", 1, ["-"]),
    ],
)
def test_cells_break_where_it_is_natural(text: str, breaks: str, width: int, lines: list[str]) -> None:
    assert broken(text, breaks, width).split("\n") == lines


@given(st.text(st.characters(codec="ascii", exclude_categories=["C"])), st.integers(1, 30))
def test_breaking_loses_nothing_but_spaces(text: str, width: int) -> None:
    lines = broken(text, " :/", width).split("\n")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 100, 140, 200])
def test_no_table_is_wider_than_its_terminal_nor_cuts_an_address(width: int) -> None:
    client, backend = "[fd00:10:244:1::abcd:1234]:40022", "[fd00:10:244:2::77aa:9]:5300"
    console = Console(width=width)
    table = terminal_table(grid(COLUMNS, [connection(client=client, backend=backend)]), width)

    with console.capture() as capture:
        console.print(table)

    shown = [line.rstrip("\n") for line in capture.get().splitlines()]
    assert all(len(line) <= width for line in shown)
    characters = "".join(shown)
    assert "…" not in characters
    for address in (client, backend):
        assert all(characters.count(char) >= address.count(char) for char in set(address))
