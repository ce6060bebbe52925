"""List and watch of one resource, for ever: what the server has is told to a store, object by object.

A list is compared with what is known, so listing again (after `410 Gone`, say) tells of real differences
only: first what is new or changed, then what is gone.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from userproxy.sources.kubernetes import wire
from userproxy.sources.kubernetes.access import AccessError, GoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from userproxy.sources.kubernetes.backoff import Backoff
    from userproxy.sources.kubernetes.wire import Meta, Name

SILENCE_SECONDS = 120.0
"""The server sends a bookmark at least every 75 seconds, so a watch that is silent for longer is dead."""

SHORT_WATCH_SECONDS = 1.0

_WATCH_SECONDS = 300.0
_SLICE_SECONDS = 0.0003


class Resource(NamedTuple):
    """What to list and watch.

    Attributes:
        name: plural, for messages.
        path: of the collection.
        selectors: query parameters that choose among its objects.
        page: how many objects to ask for at once.
    """

    name: str
    path: str
    selectors: Mapping[str, str]
    page: int = 500


class Store(Protocol):
    """Who is told. Called on the loop's thread."""

    def put(self, meta: Meta, raw: msgspec.Raw) -> None:
        """An object is new, or has changed."""

    def remove(self, name: Name) -> None:
        """An object is gone."""

    def settled(self) -> None:
        """What was told until now belongs together. Called after a list, and after each burst of changes."""


class Server(Protocol):
    """What a reflector needs of `Access`."""

    async def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """As of `Access.get`."""

    def stream(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """As of `Access.stream`."""


class Times(NamedTuple):
    """Clock, randomness and waiting.

    Attributes:
        clock: monotonic, in seconds.
        random: evenly from 0 to 1.
        sleep: waits so many seconds; 0 lets other work be done.
    """

    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = lambda: 0.5
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Reflector:
    """Keeps a store in step with the server.

    Attributes:
        synced: whether a list was complete once.
        trouble: why it is not in touch with the server now, or empty.
        heard: when it last was in touch.
    """

    def __init__(
        self,
        resource: Resource,
        server: Server,
        store: Store,
        backoff: Backoff,
        on_trouble: Callable[[Reflector], None],
        times: Times,
    ) -> None:
        """Make a reflector; `run` starts it.

        Args:
            resource: what to follow.
            server: where from.
            store: is told.
            backoff: how long to wait after failures.
            on_trouble: is called when `trouble` has changed.
            times: clock, randomness and waiting.
        """
        self.resource = resource
        self.synced = False
        self.trouble = ""
        self.heard = times.clock()
        self._server = server
        self._store = store
        self._backoff = backoff
        self._on_trouble = on_trouble
        self._times = times
        self._version = ""
        self._known: dict[Name, str] = {}
        self._in_touch = False
        self._busy_since = self.heard

    def stale_seconds(self) -> float:
        """How long ago it was last in touch; 0 while it is."""
        return 0.0 if self._in_touch else self._times.clock() - self.heard

    async def run(self) -> None:
        """Follow the resource until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except GoneError:
                self._version = ""
                await self._times.sleep(self._backoff.failed())
            except AccessError as error:
                self._report(str(error))
                pause = self._backoff.failed(unreachable=error.unreachable, retry_after=error.retry_after)
                await self._times.sleep(pause)

    async def _list(self) -> None:
        present: set[Name] = set()
        query = {**self.resource.selectors, "limit": str(self.resource.page)}
        while True:
            body = await self._server.get(self.resource.path, query)
            self._hear()
            try:
                page = wire.decode_page(body)
            except msgspec.DecodeError as error:
                raise AccessError(f"the list of {self.resource.name} is not understood: {error}") from None
            del body
            for raw in page.items or ():
                present.add(self._put(raw))
                await self._breathe()
            query["continue"] = page.metadata.continue_
            if not page.metadata.continue_:
                break
        for name in self._known.keys() - present:
            self._remove(name)
            await self._breathe()
        self._version = page.metadata.resource_version
        self.synced = True
        self._store.settled()

    async def _watch(self) -> None:
        # As client-go: five to ten minutes, different for everyone.
        seconds = _WATCH_SECONDS * (1 + self._times.random())
        query = {
            **self.resource.selectors,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(seconds)),
        }
        began, before = self._times.clock(), self._version
        async with self._server.stream(self.resource.path, query, SILENCE_SECONDS) as chunks:
            self._report("")
            self._hear()
            try:
                await self._follow(chunks)
            finally:
                self._in_touch = False
        self._hear()
        if self._version == before and self._times.clock() - began < SHORT_WATCH_SECONDS:
            raise AccessError(f"the API server ends the watch of {self.resource.name} at once")
        self._backoff.succeeded()

    async def _follow(self, chunks: AsyncIterator[bytes]) -> None:
        self._in_touch = True
        rest = b""
        async for chunk in chunks:
            self._hear()
            lines, rest = wire.lines(rest + chunk)
            for line in lines:
                self._take(line)
                await self._breathe()
            if lines:
                self._backoff.succeeded()
                self._store.settled()

    def _take(self, line: bytes) -> None:
        try:
            event = wire.decode_event(line)
            meta = wire.meta(event.object)
        except msgspec.DecodeError as error:
            self._version = ""
            raise AccessError(f"the watch of {self.resource.name} is not understood: {error}") from None
        match event.type:
            case "ADDED" | "MODIFIED":
                self._put(event.object)
            case "DELETED":
                self._remove(meta.key)
            case "ERROR":
                status = wire.decode_status(event.object)
                if status.code == wire.GONE:
                    raise GoneError(status.message or "")
                raise AccessError(f"the watch of {self.resource.name} failed: {status.message}")
        self._version = meta.resource_version or self._version

    def _put(self, raw: msgspec.Raw) -> Name:
        meta = wire.meta(raw)
        if self._known.get(meta.key) != meta.resource_version:
            self._store.put(meta, raw)
            self._known[meta.key] = meta.resource_version
        return meta.key

    def _remove(self, name: Name) -> None:
        if self._known.pop(name, None) is not None:
            self._store.remove(name)

    async def _breathe(self) -> None:
        """Let the relay work after each bit of ours: decoding a large cluster takes a second."""
        if self._times.clock() - self._busy_since > _SLICE_SECONDS:
            await self._times.sleep(0)
            self._busy_since = self._times.clock()

    def _hear(self) -> None:
        self.heard = self._times.clock()

    def _report(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._on_trouble(self)
