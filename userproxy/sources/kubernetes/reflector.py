"""List and watch of one resource, for ever: what the server has is told to a store, object by object.

A list is compared with what is known, so listing again (after `410 Gone`, say) tells of real differences
only: first what is new or changed, then what is gone.

Whatever answers in the server's place, be it the login page of a proxy, what is known stays: an answer that
is no whole list takes nothing away, and an object that cannot be told apart takes no other one with it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, TypeVar

from userproxy.sources.api import DecodeError
from userproxy.sources.kubernetes import wire
from userproxy.sources.kubernetes.failures import AccessError, GoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    import msgspec

    from userproxy.sources.kubernetes.backoff import Backoff
    from userproxy.sources.kubernetes.wire import Meta, Name

SILENCE_SECONDS = 120.0
"""The server sends a bookmark at least every 75 seconds, so a watch that is silent for longer is dead."""

STEADY_SECONDS = 5.0
"""A watch that ends sooner counts as a failure, whatever it has brought: a server that does this all the
time, or something before it, would otherwise be asked without a pause."""

_T = TypeVar("_T")

_WATCH_SECONDS = 300.0
_SLICE_SECONDS = 0.0003


class Resource(NamedTuple):
    """What to list and watch.

    Attributes:
        name: plural, for messages.
        path: of the collection.
        kind: of its lists.
        selectors: query parameters that choose among its objects.
        page: how many objects to ask for at once.
        namespaced: whether each has a namespace.
    """

    name: str
    path: str
    kind: str
    selectors: Mapping[str, str]
    page: int = 500
    namespaced: bool = True


class Store(Protocol):
    """Who is told. Called on the loop's thread."""

    def put(self, meta: Meta, raw: msgspec.Raw) -> None:
        """An object is new, or has changed."""

    def remove(self, name: Name) -> None:
        """An object is gone."""

    def doubt(self, flaw: str) -> None:
        """What of the list cannot be told apart, in one line; empty if there is nothing like that."""

    def settled(self) -> None:
        """What was told until now belongs together. Called after a list, and after each burst of changes."""


class Server(Protocol):
    """What a reflector needs of `Access`."""

    server: str

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
        error: why it is not in touch with the server now, or empty.
        heard: when it last was in touch.
    """

    def __init__(
        self,
        resource: Resource,
        server: Server,
        store: Store,
        backoff: Backoff,
        on_error: Callable[[Reflector], None],
        times: Times,
    ) -> None:
        """Make a reflector; `run` starts it.

        Args:
            resource: what to follow.
            server: where from.
            store: is told.
            backoff: how long to wait after failures.
            on_error: is called when `error` has changed.
            times: clock, randomness and waiting.
        """
        self.resource = resource
        self.synced = False
        self.error = ""
        self.heard = times.clock()
        self._server = server
        self._store = store
        self._backoff = backoff
        self._on_error = on_error
        self._times = times
        self._version = ""
        self._known: dict[Name, str] = {}
        self._flaw = ""
        self._opened = self.heard
        self._short_watches = 0
        self._in_touch = False
        self._busy_since = self.heard

    def stale_seconds(self) -> float:
        """How long ago it was last in touch; 0 while it is."""
        return 0.0 if self._in_touch else self._times.clock() - self.heard

    async def run(self) -> None:
        """Follow the resource until cancelled."""
        while True:
            listed = not self._version
            try:
                if listed:
                    await self._list()
                await self._watch()
            except GoneError as error:
                self._version = ""
                if listed:
                    self._report(f"what was just listed of {self._whose} is gone: {error}")
                await self._times.sleep(self._backoff.failed(retry_after=error.retry_after))
            except AccessError as error:
                self._report(str(error))
                pause = self._backoff.failed(unreachable=error.unreachable, retry_after=error.retry_after)
                await self._times.sleep(pause)

    async def _list(self) -> None:
        present: set[Name] = set()
        flaws: list[str] = []
        query = {**self.resource.selectors, "limit": str(self.resource.page)}
        while True:
            page = await self._page(query)
            for raw in page.items or ():
                try:
                    present.add(self._put(raw).key)
                except DecodeError as error:
                    flaws.append(f"{error}, in '{wire.beginning(bytes(raw))}'")
                await self._breathe()
            query["continue"] = page.metadata.continue_
            if not page.metadata.continue_:
                break
        # What is not in the list may be the very object that cannot be told apart: then it stays.
        for name in () if flaws else self._known.keys() - present:
            self._remove(name)
            await self._breathe()
        self._doubt(flaws)
        self._version = page.metadata.resource_version
        self.synced = True
        self._store.settled()

    async def _page(self, query: Mapping[str, str]) -> wire.Page:
        body = await self._server.get(self.resource.path, query)
        try:
            page = wire.decode_page(body, self.resource.kind, query.get("continue", ""))
        except DecodeError as error:
            told = f"{error}; it begins with '{wire.beginning(body)}'"
            raise AccessError(f"the list of {self._whose} is not understood: {told}") from None
        self._hear()
        return page

    def _doubt(self, flaws: list[str]) -> None:
        count = f"{len(flaws)} of the list of {self._whose}"
        self._flaw = f"{count} left out, for want of a name: {flaws[0]}" if flaws else ""
        self._store.doubt(self._flaw)

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
        async with self._server.stream(self.resource.path, query, SILENCE_SECONDS) as chunks:
            if self._short_watches < 2:  # noqa: PLR2004 - one may be chance, what comes again is an error that lasts
                self._report("")
            self._hear()
            self._in_touch = True
            self._opened = self._times.clock()
            try:
                await self._follow(chunks)
                self._hear()
            except AccessError as error:
                error.unreachable = False  # it was reached, and is asked less often if that goes on
                raise
            finally:
                self._in_touch = False
                if not self._note_steady():
                    self._short_watches += 1
        if self._flaw:
            self._version = ""
        if self._short_watches:
            raise AccessError(f"the watch of {self._whose} ends within {STEADY_SECONDS:g} s")

    def _note_steady(self) -> bool:
        """Forgive what was before, if the watch has lasted."""
        steady = self._times.clock() - self._opened >= STEADY_SECONDS
        if steady:
            self._backoff.succeeded()
            if self._short_watches:
                self._short_watches = 0
                self._report("")
        return steady

    async def _follow(self, chunks: AsyncIterator[bytes]) -> None:
        lines = wire.Lines()
        async for chunk in chunks:
            self._hear()
            self._note_steady()
            whole = self._understood(lines.feed, chunk)
            for line in whole:
                self._understood(self._take, line)
                await self._breathe()
            if whole:
                self._store.settled()

    def _understood(self, read: Callable[[bytes], _T], said: bytes) -> _T:
        """What is made of a part of the watch.

        Raises:
            AccessError: nothing. What it was about is to be had from a list alone.
        """
        try:
            return read(said)
        except DecodeError as error:
            self._version = ""
            told = f"{error}, in '{wire.beginning(said)}'"
            raise AccessError(f"the watch of {self._whose} is not understood: {told}") from None

    def _take(self, line: bytes) -> None:
        event = wire.decode_event(line)
        version = ""
        match event.type:
            case "ADDED" | "MODIFIED":
                version = self._put(event.object).resource_version
            case "DELETED":
                meta = self._meta(event.object)
                self._remove(meta.key)
                version = meta.resource_version
            case "BOOKMARK":
                version = wire.version(event.object)
            case "ERROR":
                self._fail(wire.decode_status(event.object))
        self._version = version or self._version

    def _fail(self, status: wire.Status) -> NoReturn:
        if status.code == wire.GONE:
            raise GoneError(wire.one_line(status.message))
        if status == wire.Status():
            self._version = ""
        said = wire.one_line(status.message or "it does not say why")
        raise AccessError(f"the watch of {self._whose} failed: {said}")

    def _put(self, raw: msgspec.Raw) -> Meta:
        meta = self._meta(raw)
        if not meta.resource_version or self._known.get(meta.key) != meta.resource_version:
            self._store.put(meta, raw)
            self._known[meta.key] = meta.resource_version
        return meta

    def _meta(self, raw: msgspec.Raw) -> Meta:
        meta = wire.meta(raw)
        if self.resource.namespaced and not meta.namespace:
            raise DecodeError("metadata.namespace", "is missing")
        return meta

    def _remove(self, name: Name) -> None:
        if self._known.pop(name, None) is not None:
            self._store.remove(name)

    @property
    def _whose(self) -> str:
        return f"{self.resource.name} from {self._server.server}"

    async def _breathe(self) -> None:
        """Let the relay work after each bit of ours: decoding a large cluster takes a second."""
        if self._times.clock() - self._busy_since > _SLICE_SECONDS:
            await self._times.sleep(0)
            self._busy_since = self._times.clock()

    def _hear(self) -> None:
        self.heard = self._times.clock()

    def _report(self, error: str) -> None:
        if error != self.error:
            self.error = error
            self._on_error(self)
