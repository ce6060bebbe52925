"""`userproxy top` on a screen of 80x24, with a daemon that does as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from textual import events
from textual.binding import Binding

from userproxy.cli.top.app import Top
from userproxy.cli.top.arrange import GroupBy, SortBy, Wanted
from userproxy.cli.top.columns import Layout
from userproxy.cli.top.remote import Look
from userproxy.ops.admin.messages import Drained, Killed
from userproxy.ops.client import AdminError
from userproxy.tests.ops.daemon import STATUS, connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from textual.pilot import Pilot

    from userproxy.model.address import Address
    from userproxy.model.rows import ConnectionRow


class MadeUp:
    """The daemon that is watched; it looks when it is told to."""

    def __init__(self, rows: list[ConnectionRow]) -> None:
        self.rows = rows
        self.error = ""
        self.killed: list[tuple[str, ...]] = []
        self.drained: list[tuple[str, bool]] = []
        self._due, self._looked = asyncio.Event(), asyncio.Event()

    def look(self) -> Look:
        """The rows as they are now."""
        self._fail()
        return Look(self.rows, STATUS)

    def kill(self, ids: Sequence[str], /) -> Killed:
        """Note them, and take them away."""
        self._fail()
        self.killed.append(tuple(ids))
        return Killed(killed=len(ids))

    def drain(self, backend: Address, /, *, undo: bool) -> Drained:
        """Note it."""
        self._fail()
        self.drained.append((str(backend), undo))
        return Drained(backends=2, connections=5)

    async def pause(self) -> None:
        """Wait until the test wants another look."""
        self._looked.set()
        await self._due.wait()
        self._due.clear()

    async def next(self) -> None:
        """Have it look once, and wait for that."""
        self._looked.clear()
        self._due.set()
        await self._looked.wait()

    async def first(self) -> None:
        """Wait for the first look."""
        await self._looked.wait()

    def _fail(self) -> None:
        if self.error:
            raise AdminError(self.error)


class Desk:
    """Someone before the screen.

    Attributes:
        daemon: that is watched.
        app: the program.
    """

    def __init__(self, pilot: Pilot[None], daemon: MadeUp, app: Top) -> None:
        self._pilot = pilot
        self.daemon = daemon
        self.app = app

    async def press(self, *keys: str) -> str:
        """Press keys; returns the screen after that."""
        await self._pilot.press(*keys)
        while self._acts and not self.asks:
            await self._pilot.pause()
        return await self.screen()

    async def answer(self, *keys: str) -> str:
        """Answer the question; returns the screen once that is done."""
        await self._pilot.press(*keys)
        while self._acts:
            await self._pilot.pause()
        return await self.screen()

    async def look(self) -> str:
        """Have the daemon looked at; returns the screen after that."""
        await self.daemon.next()
        return await self.screen()

    async def screen(self) -> str:
        """What is on the screen, once it stays as it is."""
        before, shown = "", self._drawn()
        while shown != before:
            for _ in range(3):
                await self._pilot.pause()
            before, shown = shown, self._drawn()
        return shown

    def _drawn(self) -> str:
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    @property
    def _acts(self) -> bool:
        """Whether something is being asked or done."""
        return any(one.group in ("kill", "drain") and not one.is_finished for one in self.app.workers)

    @property
    def asks(self) -> bool:
        """Whether a question lies over the table."""
        return len(self.app.screen_stack) > 1


@contextlib.asynccontextmanager
async def watching(*rows: ConnectionRow, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Desk]:
    """The program runs meanwhile, and has looked once."""
    daemon = MadeUp(list(rows))
    app = Top(daemon, Wanted(), daemon.pause)
    async with app.run_test(size=size) as pilot:
        await daemon.first()
        yield Desk(pilot, daemon, app)


def lines(screen: str) -> list[str]:
    """Those of the table."""
    shown = screen.split("\n")
    below = 2 if shown[-1] else 3  # a filter is typed, and the keys are all its own
    return [line for line in shown[4:-below] if line]


IDLE = [
    connection(
        number, bytes_up=0, bytes_down=9, idle_seconds=600.0, client=f"10.9.{number // 250}.1:{number}"
    )
    for number in range(2000)
]
BUSY = connection(7777, service="shop/cart:grpc", client="10.0.7.7:7777")
THREE = (
    connection(1, service="a/one", client="10.0.1.1:1", age_seconds=10.0, bytes_down=10**6),
    connection(
        2, service="a/two", client="10.0.1.2:2", age_seconds=900.0, backend="10.0.9.9:80", state="waiting"
    ),
    connection(
        3, service="a/two", client="10.0.1.2:3", age_seconds=20.0, backend="10.0.9.9:80", bytes_down=9
    ),
)


async def test_a_busy_one_among_2000_idle_ones_is_on_top_as_soon_as_it_moves() -> None:
    async with watching(*IDLE, msgspec.structs.replace(BUSY, age_seconds=1e6)) as desk:
        desk.daemon.rows[-1] = msgspec.structs.replace(BUSY, bytes_down=10**8)
        screen = await desk.look()
    assert "2,001 connections" in screen.splitlines()[0]
    assert "2,001 established" in screen.splitlines()[1]
    assert "10.0.7.7:7777" in lines(screen)[0]
    assert all("10.9." in line for line in lines(screen)[1:])


async def test_everything_has_its_place_at_80x24() -> None:
    async with watching(*THREE) as desk:
        while "q quit" not in (shown := await desk.screen()):  # the keys are drawn last
            await desk.look()
    screen = shown.splitlines()
    assert len(screen) == 24
    assert screen[0].startswith("host1, up 1h1m  3 connections  +0/s -0/s  ↑ ")
    assert screen[1].split() == ["2", "established", "1", "waiting"]
    assert screen[2] == "by rate  1 problem: userproxy status"
    assert screen[3].split() == ["SERVICE", "CLIENT", "BACKEND", "STATE", "AGE", "IDLE", "RATE/s▼"]
    assert " ".join(screen[-2].split()) == "a/one 10.0.1.1:1 > 10.0.1.2:8080 at 10.3.241.152:80 1 established"
    for key in ("r rate", "/ filter", "k kill", "d drain", "? help", "q quit"):
        assert key in screen[-1]


async def test_keys_sort_and_once_more_the_other_way_round() -> None:
    async with watching(*THREE) as desk:
        assert lines(await desk.press("a"))[0].startswith("a/two          10.0.1.2:2")
        assert lines(await desk.press("a"))[0].startswith("a/one")
        assert "by age, reversed" in await desk.screen()
        assert lines(await desk.press("b"))[0].startswith("a/two")
        assert "IDLE▲" in await desk.press("i")


async def test_a_filter_works_while_it_is_typed_and_its_letters_are_no_keys() -> None:
    async with watching(*THREE) as desk:
        assert len(lines(await desk.press("slash", *"a/one"))) == 1
        assert len(lines(await desk.press(*["backspace"] * 5, *"killq"))) == 0
        assert not desk.asks
        assert len(lines(await desk.press(*["backspace"] * 5, *"10.0.9.9"))) == 2
        assert "2 with '10.0.9.9'" in await desk.press("enter")
        assert len(lines(await desk.press("escape"))) == 3


async def test_what_is_typed_ahead_of_the_screen_is_of_the_filter() -> None:
    async with watching(*THREE) as desk:
        for key, character in (("slash", "/"), ("k", "k"), ("q", "q")):
            desk.app.post_message(events.Key(key, character))
        assert "0 with 'kq'" in await desk.screen()


async def test_groups_and_what_is_in_one() -> None:
    async with watching(*THREE) as desk:
        assert [line.split()[0] for line in lines(await desk.press("g"))] == ["a/one", "a/two"]
        screen = await desk.press("down", "enter")
        assert [line.split()[1] for line in lines(screen)] == ["10.0.1.2:2", "10.0.1.2:3"]
        await desk.press("escape", "g", "g")
        assert "a line for each backend" in await desk.screen()
        assert {line.split()[0] for line in lines(await desk.press("g"))} == {"10.0.1.1", "10.0.1.2"}
        assert len(lines(await desk.press("g"))) == 3


async def test_the_cursor_stays_with_its_line_and_at_the_top_with_whoever_comes_there() -> None:
    async with watching(*THREE) as desk:
        assert (await desk.press("a")).splitlines()[-2].startswith("a/two  10.0.1.2:2")
        assert (await desk.press("a")).splitlines()[-2].startswith("a/one")
        assert (await desk.press("end")).splitlines()[-2].startswith("a/two  10.0.1.2:2")
        assert (await desk.press("a", "b")).splitlines()[-2].startswith("a/two  10.0.1.2:2")
        desk.daemon.rows = list(THREE[:1])
        assert (await desk.look()).splitlines()[-2].startswith("a/one")
        desk.daemon.rows = []
        assert (await desk.look()).splitlines()[-2] == ""
        assert not (await desk.press("k", "d", "down", "end", "pagedown")).splitlines()[-2]


async def test_thousands_are_scrolled_through() -> None:
    async with watching(*IDLE) as desk:
        first = lines(await desk.screen())
        assert lines(await desk.press("pagedown", "pagedown")) != first
        assert "10.9.7.1:1999" in (await desk.press("slash", *"1999", "enter")).splitlines()[4]
        await desk.press("escape")
        last = await desk.press("end")
        assert last.splitlines()[-2].split()[1] in lines(last)[-1]
        assert lines(await desk.press("home")) == first


async def test_kill_asks_first_and_does_only_what_was_shown() -> None:
    async with watching(*THREE) as desk:
        asked = await desk.press("k")
        assert "Reset the connection 1 of 10.0.1.1:1 to 10.0.1.2:8080 (a/one)?" in asked
        await desk.answer("n")
        await desk.press("k", "x")
        assert desk.asks
        await desk.answer("escape")
        assert desk.daemon.killed == []
        assert "killed 1 connection" in await desk.answer("k", "y")
        assert desk.daemon.killed == [("1",)]
        asked = await desk.press("g", "down", "k")
        assert "Reset 2 connections of the Service a/two?" in asked
        desk.daemon.rows.append(connection(9, service="a/two"))
        await desk.daemon.next()
        assert "killed 2 connections" in await desk.answer("y")
        assert set(desk.daemon.killed[1]) == {"2", "3"}


async def test_drain_asks_first_and_is_undone() -> None:
    async with watching(*THREE) as desk:
        assert "Give 10.0.1.2:8080 no new connections?" in await desk.press("d")
        assert "10.0.1.2:8080 gets no new connections: 2 backends" in await desk.answer("y")
        assert "Let 10.0.1.2:8080 get new connections again?" in await desk.press("u")
        assert "may be picked again" in await desk.answer("y")
        assert desk.daemon.drained == [("10.0.1.2:8080", False), ("10.0.1.2:8080", True)]
        assert "choose a connection or" in await desk.press("g", "d")
        assert not desk.asks


async def test_a_refusal_is_told_and_it_goes_on() -> None:
    async with watching(*THREE) as desk:
        await desk.press("d")
        desk.daemon.error = "no: do this"
        assert "no: do this" in await desk.answer("y")
        desk.daemon.error = ""
        assert "by rate" in await desk.look()


async def test_it_waits_for_a_daemon_that_starts_anew() -> None:
    async with watching(*THREE) as desk:
        desk.daemon.error = "no daemon at /run/s: start one"
        screen = await desk.look()
        assert "waiting for the daemon: no daemon at /run/s" in screen
        assert len(lines(screen)) == 3  # what was there last
        desk.daemon.error, desk.daemon.rows = "", [THREE[0]]
        screen = await desk.look()
        assert "waiting" not in screen
        assert len(lines(screen)) == 1
        assert "+0/s -0/s" in screen  # nobody opened or ended those


async def test_a_pause_keeps_what_is_shown() -> None:
    async with watching(*THREE) as desk:
        assert "paused" in await desk.press("p")
        desk.daemon.rows = []
        assert len(lines(await desk.look())) == 3
        await desk.press("p")
        assert len(lines(await desk.look())) == 0


async def test_help_explains_the_keys_and_q_leads_back() -> None:
    async with watching(*THREE) as desk:
        assert "drain a backend" in await desk.press("question_mark")
        assert "drain a backend" not in await desk.press("q")
        assert desk.app.is_running


@pytest.mark.parametrize(
    ("keys", "size"), [(["q"], (80, 24)), (["ctrl+c"], (20, 5)), (["k", "ctrl+c"], (300, 80))]
)
async def test_it_leaves_at_any_size(keys: list[str], size: tuple[int, int]) -> None:
    async with watching(*THREE, size=size) as desk:
        for key in keys:  # the pilot would wait for the screen of a program that is gone
            desk.app.simulate_key(key)
        while desk.app.is_running:  # noqa: ASYNC110 - textual has no event for it
            await asyncio.sleep(0)


async def test_another_size_shows_more() -> None:
    async with watching(*THREE) as desk:
        await desk._pilot.resize_terminal(160, 40)
        assert (await desk.screen()).splitlines()[3].split()[0] == "ID"


def test_the_picture_in_the_readme_is_of_this_program() -> None:
    root = Path(__file__).parents[4]
    assert "(docs/top.svg)" in (root / "README.md").read_text()
    drawn = (root / "docs" / "top.svg").read_text()
    texts = " ".join(html.unescape(text) for text in re.findall(r">([^<>]+)</text>", drawn)).replace(
        "\xa0", " "
    )
    for header in Layout.of(GroupBy.NOTHING, 111).headers("", SortBy.RATE, reverse=False):
        assert header.strip() in texts
    for binding in Top.BINDINGS:
        if isinstance(binding, Binding) and binding.show:
            assert f"{binding.key_display or binding.key} {binding.description}" in " ".join(texts.split())
    assert "http" not in "".join(re.findall(r"""(?:href|url)[=(]["']?(.*?)["')]""", drawn))
