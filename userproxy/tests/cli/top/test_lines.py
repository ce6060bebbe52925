"""What the lines of `userproxy top` say, in which order, and at which width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.cli.top.arrange import GroupBy, SortBy, Wanted, arranged
from userproxy.cli.top.columns import Layout, cut
from userproxy.cli.top.reading import Meter
from userproxy.tests.ops.daemon import connection

if TYPE_CHECKING:
    from userproxy.cli.top.reading import Flow
    from userproxy.model.rows import ConnectionRow


def moved(row: ConnectionRow, up: int = 0, down: int = 0) -> ConnectionRow:
    return msgspec.structs.replace(
        row, bytes_up=(row.bytes_up or 0) + up, bytes_down=(row.bytes_down or 0) + down
    )


def flows(*rows: ConnectionRow) -> list[Flow]:
    return Meter().read(rows, 0.0)[0]


def keys(wanted: Wanted, *rows: ConnectionRow) -> list[str]:
    return [line.key for line in arranged(flows(*rows), wanted)]


def test_rates_are_of_the_time_between_two_looks() -> None:
    meter, one, gone = Meter(), connection(1), connection(2)
    _, first = meter.read([one, gone], 100.0)
    assert (first.connections, first.opened, first.ended, first.up, first.down) == (2, 0, 0, 0, 0)
    new = connection(3, age_seconds=1.0, bytes_up=10, bytes_down=30)
    seen, totals = meter.read([moved(one, 100, 300), new], 102.0)
    assert [flow.rate for flow in seen] == [200.0, 20.0]
    assert (totals.opened, totals.ended, totals.up, totals.down) == (0.5, 0.5, 55.0, 165.0)
    assert totals.states == {"established": 2}


def test_what_was_there_before_the_first_look_has_its_average() -> None:
    (flow,) = flows(connection(1, age_seconds=100.0, bytes_up=200, bytes_down=800))
    assert flow.rate == 10.0


def test_an_old_connection_that_is_seen_for_the_first_time_was_not_opened_now() -> None:
    meter = Meter()
    meter.read([], 0.0)
    _, totals = meter.read([connection(1, age_seconds=500.0)], 1.0)
    assert (totals.opened, totals.down) == (0.0, 0.0)


ROWS = (
    connection(1, age_seconds=10.0, idle_seconds=3.0, bytes_up=0, bytes_down=500, client="10.0.1.3:1"),
    connection(2, age_seconds=90.0, idle_seconds=1.0, bytes_up=0, bytes_down=900, client="[fd00::1]:2"),
    connection(3, age_seconds=50.0, idle_seconds=2.0, bytes_up=0, bytes_down=100, service="a/b", backend=""),
)


@pytest.mark.parametrize(
    ("by", "order"), [("rate", ["1", "2", "3"]), ("bytes", ["2", "1", "3"]), ("age", ["2", "3", "1"])]
)
def test_the_largest_comes_first(by: str, order: list[str]) -> None:
    assert keys(Wanted(sort_by=SortBy(by)), *ROWS) == order
    assert keys(Wanted(sort_by=SortBy(by), reverse=True), *ROWS) == order[::-1]


def test_of_idle_ones_the_one_that_moved_last() -> None:
    assert keys(Wanted(sort_by=SortBy.IDLE), *ROWS) == ["2", "3", "1"]


def test_what_is_equal_keeps_its_order_whatever_the_daemon_says_first() -> None:
    same = [connection(number) for number in (5, 1, 3)]
    assert keys(Wanted(), *same) == keys(Wanted(), *reversed(same)) == ["1", "3", "5"]


@pytest.mark.parametrize(
    ("words", "found"),
    [("", 3), ("a/b", 1), ("FD00", 1), ("10.0.1.3 server", 1), ("established", 3), ("zz", 0)],
)
def test_each_word_is_looked_for_everywhere(words: str, found: int) -> None:
    assert len(keys(Wanted(filter=words), *ROWS)) == found


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (GroupBy.SERVICE, {"a/b", "default/server-service:http"}),
        (GroupBy.BACKEND, {"none yet", "10.0.1.2:8080"}),
        (GroupBy.CLIENT, {"10.0.1.3", "[fd00::1]"}),
    ],
)
def test_a_group_is_all_that_have_it_in_common(group: GroupBy, names: set[str]) -> None:
    lines = arranged(flows(*ROWS), Wanted(group_by=group))
    assert {line.key for line in lines} == names
    together = next(line for line in lines if len(line.flows) == 2)
    assert together.bytes == sum(flow.row.bytes_down or 0 for flow in together.flows)
    assert (together.age, together.idle, together.states) == (
        max(flow.row.age_seconds for flow in together.flows),
        min(flow.row.idle_seconds for flow in together.flows),
        {"established": 2},
    )


@pytest.mark.parametrize("group", GroupBy)
@pytest.mark.parametrize("width", [20, 40, 79, 80, 120, 200, 400])
def test_a_line_is_as_wide_as_the_terminal_at_most(group: GroupBy, width: int) -> None:
    layout = Layout.of(group, width)
    long = connection(1, service="n" * 63 + "/" + "s" * 63, client="[" + "f" * 39 + "]:1", state="x" * 40)
    (line,) = arranged(flows(long), Wanted(group_by=group))
    cells, headers = layout.cells(line), layout.headers("SERVICE", SortBy.RATE, reverse=False)
    assert [len(cell) for cell in cells] == [len(header) for header in headers] == list(layout.widths)
    assert width < 79 or sum(layout.widths) + len(cells) - 1 <= width


def test_at_80_columns_who_where_and_how_much_is_left() -> None:
    headers = Layout.of(GroupBy.NOTHING, 79).headers("", SortBy.RATE, reverse=False)
    assert " ".join(headers).split() == ["SERVICE", "CLIENT", "BACKEND", "STATE", "AGE", "IDLE", "RATE/s▼"]


def test_what_nobody_knows_is_no_figure() -> None:
    unknown = ("age_seconds", "bytes_up", "bytes_down")
    (line,) = arranged(flows(connection(1, unknown=unknown)), Wanted())
    assert [cell.strip() for cell in Layout.of(GroupBy.NOTHING, 150).cells(line)][-5:] == [
        "-",
        "0s",
        "-",
        "-",
        "-",
    ]


def test_nothing_can_steer_the_terminal() -> None:
    (line,) = arranged(flows(connection(1, state="\x1b[31mred\n")), Wanted())
    assert all(cell.isprintable() for cell in Layout.of(GroupBy.NOTHING, 150).cells(line))


def test_what_is_cut_is_marked() -> None:
    assert (cut("abcdef", 6), cut("abcdef", 4), cut("abcdef", 4, left=True)) == ("abcdef", "abc…", "…def")
