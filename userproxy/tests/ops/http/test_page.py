"""The page: what it shows first, that it stays small, and that it takes no text for HTML."""

from __future__ import annotations

import datetime as dt
from html.parser import HTMLParser

import msgspec

from userproxy.model.rows import SourceStatus
from userproxy.ops.http.page.overview import ROWS, Overview, overview
from userproxy.ops.http.page.render import page
from userproxy.tests.ops.daemon import DOWN, SERVICE, STATUS, UP, MadeUpView, connection

NOW = dt.datetime(2026, 11, 23, 6, 5, 30, tzinfo=dt.UTC)
VOID = {"meta", "link", "br"}


class Texts(HTMLParser):
    """Collects the texts of a page, and sees that each tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it; nothing leads away from this machine, and nothing is inline."""
        self.tags.add(tag)
        for name, value in attrs:
            assert name != "style"
            assert not name.startswith("on")
            assert name not in ("href", "src") or (value or "").startswith(("/", "#", "data:,"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It is the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note what is not just space."""
        if data.strip():
            self.texts.append(data.strip())


def read(html: str) -> Texts:
    parser = Texts()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


async def shown(view: MadeUpView) -> tuple[Overview, Texts]:
    seen = await overview(view)
    return seen, read(page(seen, ["/metrics"], NOW))


async def test_everything_that_is_little_is_shown() -> None:
    _, told = await shown(MadeUpView())
    for text in ("host1", "default/server-service:http", "10.3.241.152:80, [fd00::152]:80", "1/2", "3m12s"):
        assert text in told.texts
    for text in ("default/empty: no endpoints", "connection refused, 3 times", "1m30s", "1.2MiB", "/metrics"):
        assert text in told.texts


async def test_trouble_comes_first_and_the_rest_is_counted() -> None:
    view = MadeUpView([connection(number, idle_seconds=1000.0 - number) for number in range(1000)])
    view.service_rows[1:1] = [
        msgspec.structs.replace(SERVICE, service=f"a/{number}", problems=()) for number in range(200)
    ]
    view.backend_rows = [UP] * 200 + [DOWN]
    view.status_row = msgspec.structs.replace(STATUS, services=202, connections=1000, problems=("bad",) * 50)
    seen, told = await shown(view)
    assert [len(rows) for rows in (seen.services, seen.backends, seen.connections)] == [ROWS] * 3
    assert seen.services[0].problems
    assert (seen.backends[0], seen.backends_up) == (DOWN, 200)
    assert [row.id for row in seen.connections[:2]] == ["999", "998"]
    for more, command in ((202, "services"), (201, "backends"), (1000, "connections")):
        assert f"and {more - ROWS:,} more:" in told.texts
        assert f"userproxy {command}" in told.texts
    assert told.texts.count("bad") == 20


async def test_nothing_is_taken_for_html() -> None:
    evil = '<script>alert("x")</script>\n\x1b[31m'
    view = MadeUpView([connection(1, state=evil, service="a/b", backend="10.0.0.1:1")])
    view.service_rows = [msgspec.structs.replace(SERVICE, problems=(evil,), frontends=(evil,))]
    view.backend_rows = [msgspec.structs.replace(DOWN, reason=evil, node=evil, since=evil)]
    view.status_row = msgspec.structs.replace(STATUS, node=evil, problems=(evil,))
    _, told = await shown(view)
    assert told.tags.isdisjoint({"img", "iframe", "form", "style"})
    assert told.texts.count('<script>alert("x")</script>??[31m') == 7
    assert "alert" not in "".join(told.tags)


async def test_a_daemon_that_is_out_of_touch_or_has_nothing_says_so() -> None:
    view = MadeUpView([])
    view.service_rows, view.backend_rows = [], []
    for synced, seconds, text in ((False, 0.0, "not synced yet"), (True, 75.0, "out of touch for 1m15s")):
        source = SourceStatus(kind="kubernetes", synced=synced, stale_seconds=seconds)
        view.status_row = msgspec.structs.replace(STATUS, source=source, problems=())
        _, told = await shown(view)
        assert f"kubernetes, {text}" in told.texts
        assert told.texts.count("none") == 3
        assert "No problems." in told.texts
