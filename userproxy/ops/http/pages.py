"""What is answered at `--healthz-bind-address` and at `--metrics-bind-address`.

To add one for a person, put it into `Pages.metrics` with `_for_people`: then no page of another
site can read it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.resources
import platform
import time
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from userproxy import __version__
from userproxy.ops.admin.interface import View
from userproxy.ops.http.browsers import foreign
from userproxy.ops.http.configured import configz, flagz
from userproxy.ops.http.metrics import CONTENT_TYPE
from userproxy.ops.http.page import render
from userproxy.ops.http.page.overview import overview
from userproxy.ops.http.server import application

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from userproxy.config import Config
    from userproxy.model.counters import Counters
    from userproxy.model.figures import Figures
    from userproxy.model.rows import StatusRow
    from userproxy.ops.http.health import Health
    from userproxy.ops.http.metrics import Metrics
    from userproxy.ops.http.server import Page

_KEPT_SECONDS = 1.0
"""How old the page may be: who looks often, or in numbers, does not have it made each time."""

_FILES = {"/page.css": "text/css", "/page.js": "text/javascript"}


class Shown(View, Protocol):
    """What the daemon shows of itself, with its figures."""

    async def measured(self) -> tuple[Figures, Counters]:
        """What is measured and counted."""


class Pages:
    """What is answered.

    Args:
        health: tells how the daemon is.
        view: what it shows.
        metrics: are rendered.
        config: what `/configz`, `/flagz` and `/proxyMode` answer.
        names: under which this machine is known, beside its addresses.
    """

    def __init__(
        self,
        health: Callable[[], Health],
        view: Shown,
        metrics: Metrics,
        config: Config,
        names: Collection[str] = (),
    ) -> None:
        self._health = health
        self._view = view
        self._metrics = metrics
        self._config = config
        self._names = frozenset(name.lower() for name in names)
        self._rendering = asyncio.Lock()
        self._page = ""
        self._made = float("-inf")
        self._links: tuple[str, ...] = ()

    def probes(self) -> web.Application:
        """For `--healthz-bind-address`."""
        return application({"/healthz": self._healthz, "/livez": self._livez, "/readyz": self._readyz})

    def metrics(self) -> web.Application:
        """For `--metrics-bind-address`."""
        pages: dict[str, Page] = {
            "/": self._for_people(self._overview),
            "/metrics": self._scrape,
            "/healthz": self._healthz,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/statusz": self._for_people(self._statusz),
            "/configz": self._for_people(self._configz),
            "/flagz": self._for_people(self._flagz),
            "/proxyMode": self._proxy_mode,
        }
        self._links = tuple(path for path in pages if path != "/")
        return application(pages | {path: self._for_people(self._file) for path in _FILES})

    def _for_people(self, page: Page) -> Page:
        """A page that only whoever asks this machine by its own name gets."""

        async def answer(request: web.Request) -> web.Response:
            if reason := foreign(request, self._names):
                return web.Response(
                    status=403, text=f"{reason}: use its address, localhost or its node's name\n"
                )
            response = await page(request)
            response.headers["Content-Security-Policy"] = render.POLICY
            response.headers["Cache-Control"] = "no-store"
            return response

        return answer

    async def _overview(self, _request: web.Request) -> web.Response:
        async with self._rendering:
            if time.monotonic() - self._made > _KEPT_SECONDS:
                seen, now = await overview(self._view), dt.datetime.now(dt.UTC)
                self._page = await asyncio.to_thread(render.page, seen, self._links, now)
                self._made = time.monotonic()
        return web.Response(text=self._page, content_type="text/html")

    async def _file(self, request: web.Request) -> web.Response:
        text = (importlib.resources.files(render.__package__) / request.path[1:]).read_text()
        return web.Response(text=text, content_type=_FILES[request.path])

    async def _statusz(self, _request: web.Request) -> web.Response:
        async with self._rendering:
            status = await self._view.status()
        return web.Response(text=_statusz(status, self._links, dt.datetime.now(dt.UTC)))

    async def _healthz(self, _request: web.Request) -> web.Response:
        health = self._health()
        return self._counted("healthz", health, healthy=health.healthy)

    async def _livez(self, _request: web.Request) -> web.Response:
        health = self._health()
        return self._counted("livez", health, healthy=health.alive)

    async def _readyz(self, _request: web.Request) -> web.Response:
        health = self._health()
        return _probe(health, healthy=health.ready)

    def _counted(self, path: str, health: Health, *, healthy: bool) -> web.Response:
        answer = _probe(health, healthy=healthy)
        self._metrics.probed(path, answer.status)
        return answer

    async def _scrape(self, _request: web.Request) -> web.Response:
        async with self._rendering:
            body = await asyncio.to_thread(self._metrics.render, *await self._view.measured())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _proxy_mode(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._config.mode)

    async def _configz(self, _request: web.Request) -> web.Response:
        return web.Response(body=configz(self._config), content_type="application/json")

    async def _flagz(self, _request: web.Request) -> web.Response:
        return web.Response(text=flagz(self._config))


def _probe(health: Health, *, healthy: bool) -> web.Response:
    return web.Response(
        status=200 if healthy else 503, body=health.body(healthy=healthy), content_type="application/json"
    )


def _statusz(status: StatusRow, paths: Collection[str], now: dt.datetime) -> str:
    """As Kubernetes' components have it (KEP-4827), with what is ours."""
    seconds = int(status.uptime_seconds)
    started = now - dt.timedelta(seconds=seconds)
    facts = {
        "Started": f"{started:%a %b %d %H:%M:%S UTC %Y}",
        "Up": f"{seconds // 3600} hr {seconds // 60 % 60:02} min {seconds % 60:02} sec",
        "Python version": platform.python_version(),
        "Binary version": __version__,
        "Node": status.node,
        "Mode": status.mode,
        "Source": f"{status.source.kind}, synced={str(status.source.synced).lower()}",
        "Problems": str(len(status.problems)),
        "Paths": " ".join(paths),
    }
    lines = [f"{name}: {value}" for name, value in facts.items()]
    warning = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility "
    return "\n".join(
        ["userproxy statusz", f"{warning}guarantees and is for debugging purposes only.", "", *lines, ""]
    )
