"""The overview as HTML. Pure; every text is escaped, and nothing on the page comes from elsewhere."""

from __future__ import annotations

import datetime as dt
import html
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.human import human_age, human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, StatusRow
    from userproxy.ops.http.page.overview import Overview

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy: nothing inline, nothing from elsewhere, and in nobody's frame."""

REFRESH_SECONDS = 5

_MOST_PROBLEMS = 20

_GOOD, _WAITING, _BAD = "good", "waiting", "bad"
_TONES = dict.fromkeys(("up", "established", "assured", "replied"), _GOOD) | {"down": _BAD, "ejected": _BAD}
"""Of states; the others wait for something, or are on their way out."""


class _Cell(msgspec.Struct, frozen=True):
    """A cell of a table.

    Attributes:
        text: in it.
        tone: how it is meant: good, waiting, bad, or nothing of these.
        number: whether it is a figure.
        word: whether it stays on one line where there is room.
        link: the part of the page that it leads to.
    """

    text: str
    tone: str = ""
    number: bool = False
    word: bool = False
    link: str = ""


def page(seen: Overview, links: Iterable[str], now: dt.datetime) -> str:
    """The whole page.

    Args:
        seen: what is shown.
        links: the paths that the page leads to.
        now: the time at which it was seen, in UTC.
    """
    status = seen.status
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(f"{status.node}: userproxy")}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<script src="/page.js" defer></script>
<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>
</head>
<body data-seconds="{REFRESH_SECONDS}">
<main>
{_header(seen)}
{_problems(status)}
{_services(seen)}
{_backends(seen, now)}
{_connections(seen)}
</main>
<footer>
<p>{" ".join(f'<a href="{_text(link)}">{_text(link)}</a>' for link in links)}</p>
<p>userproxy {_text(status.version)}; seen at <time id="seen">{now:%Y-%m-%d %H:%M:%S} UTC</time>,
read anew every {REFRESH_SECONDS} seconds</p>
</footer>
</body>
</html>
"""


def _header(seen: Overview) -> str:
    status, source = seen.status, seen.status.source
    if not source.synced:
        freshness = _Cell("not synced yet", _WAITING)
    elif source.stale_seconds >= 1:
        freshness = _Cell(f"out of touch for {human_age(source.stale_seconds)}", _BAD)
    else:
        freshness = _Cell("in step", _GOOD)
    facts = {
        "node": _Cell(status.node),
        "mode": _Cell(status.mode),
        "up for": _Cell(human_age(status.uptime_seconds)),
        "source": _Cell(f"{source.kind}, {freshness.text}", freshness.tone),
        "Service ports": _Cell(f"{status.services:,}", link="services"),
        "backends up": _Cell(f"{seen.backends_up:,} of {seen.all_backends:,}", link="backends"),
        "listeners": _Cell(f"{status.listeners:,}"),
        "connections": _Cell(f"{status.connections:,}", link="connections"),
    }
    shown = "\n".join(f"<div><dt>{name}</dt><dd>{_told(cell)}</dd></div>" for name, cell in facts.items())
    return f"<header>\n<h1>userproxy</h1>\n<dl>\n{shown}\n</dl>\n</header>"


def _problems(status: StatusRow) -> str:
    if not status.problems:
        return f"<section><p>{_told(_Cell('No problems.', _GOOD))}</p></section>"
    shown = status.problems[:_MOST_PROBLEMS]
    items = "\n".join(f"<li>{_told(_Cell(problem, _BAD))}</li>" for problem in shown)
    more = _more(len(status.problems) - len(shown), "userproxy status")
    title = f"Problems <small>{len(status.problems):,}</small>"
    return f"<section>\n<h2>{title}</h2>\n<ul>\n{items}\n</ul>\n{more}</section>"


def _services(seen: Overview) -> str:
    rows = [
        (
            _Cell(row.service),
            _Cell(row.protocol),
            _Cell(row.path, word=True),
            _Cell(row.policy, word=True),
            _Cell(", ".join(row.frontends)),
            _Cell(row.listener or "", word=True),
            _Cell(f"{row.backends_up}/{row.backends}", _tone_of(row), number=True),
            _Cell(f"{row.connections:,}", number=True),
            _Cell("; ".join(row.problems), _BAD if row.problems else ""),
        )
        for row in seen.services
    ]
    headers = (
        "Service",
        "protocol",
        "path",
        "policy",
        "reached at",
        "listener",
        "backends",
        "connections",
        "problems",
    )
    more = _more(seen.status.services - len(rows), "userproxy services")
    return _table("Services", f"{seen.status.services:,}", headers, rows, more)


def _tone_of(row: ServiceRow) -> str:
    if row.backends_up:
        return _GOOD if row.backends_up == row.backends else _WAITING
    return _BAD if row.backends else _WAITING


def _backends(seen: Overview, now: dt.datetime) -> str:
    rows = [
        (
            _Cell(row.service),
            _Cell(row.backend, word=True),
            _Cell(row.node, word=True),
            _Cell(row.state, _TONES.get(row.state, _WAITING), word=True),
            _Cell(_elapsed(row, now), number=True),
            _Cell("" if row.latency_ms is None else f"{row.latency_ms:.1f} ms", number=True),
            _Cell(f"{row.connections:,}", number=True),
            _Cell(row.reason),
        )
        for row in seen.backends
    ]
    headers = ("Service", "backend", "node", "state", "for", "latency", "connections", "why")
    more = _more(seen.all_backends - len(rows), "userproxy backends")
    return _table("Backends", f"{seen.backends_up:,} of {seen.all_backends:,} up", headers, rows, more)


def _connections(seen: Overview) -> str:
    rows = [
        (
            _Cell(row.id, word=True),
            _Cell(row.service),
            _Cell(row.client, word=True),
            _Cell(row.backend, word=True),
            _Cell(row.state, _TONES.get(row.state, _WAITING), word=True),
            _Cell(_known(row, "age_seconds", human_age(row.age_seconds)), number=True),
            _Cell(human_age(row.idle_seconds), number=True),
            _Cell(_known(row, "bytes_up", human_bytes(row.bytes_up or 0)), number=True),
            _Cell(_known(row, "bytes_down", human_bytes(row.bytes_down or 0)), number=True),
        )
        for row in seen.connections
    ]
    headers = ("id", "Service", "client", "backend", "state", "age", "idle", "up", "down")
    more = _more(seen.status.connections - len(rows), "userproxy connections")
    return _table("Connections", f"{seen.status.connections:,}", headers, rows, more)


def _table(title: str, count: str, headers: Sequence[str], rows: Sequence[Sequence[_Cell]], more: str) -> str:
    begin = f'<section id="{title.lower()}">\n<h2>{title} <small>{count}</small></h2>\n'
    if not rows:
        return f"{begin}<p>none</p>\n</section>"
    numbers = [cell.number for cell in rows[0]]
    head = "".join(
        f'<th scope="col"{_class("number" if number else "")}>{name}</th>'
        for name, number in zip(headers, numbers, strict=True)
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, row, headers))}</tr>" for row in rows)
    return (
        f"{begin}<table>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n{more}</section>"
    )


def _cell(cell: _Cell, header: str) -> str:
    kinds = {"number": cell.number, "word": cell.word, "empty": not cell.text}
    kind = " ".join(name for name, applies in kinds.items() if applies)
    return f'<td data-name="{header}"{_class(kind)}>{_told(cell)}</td>'


def _told(cell: _Cell) -> str:
    text = _text(cell.text)
    if cell.link:
        return f'<a href="#{cell.link}">{text}</a>'
    return f"<span{_class(cell.tone)}>{text}</span>" if cell.tone else text


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _more(count: int, command: str) -> str:
    return f"<p>and {count:,} more: <code>{command}</code></p>\n" if count > 0 else ""


def _known(row: ConnectionRow, field: str, shown: str) -> str:
    return "" if field in row.unknown else shown


def _elapsed(row: BackendRow, now: dt.datetime) -> str:
    try:
        return human_age((now - dt.datetime.fromisoformat(row.since)).total_seconds())
    except (ValueError, TypeError):  # not RFC 3339, or without a zone
        return ""


def _text(text: str) -> str:
    return html.escape("".join(char if char.isprintable() else "?" for char in text))
