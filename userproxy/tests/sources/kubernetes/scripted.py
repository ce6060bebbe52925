"""An API server that answers by a script, and a clock that only moves when somebody sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from userproxy.sources.kubernetes.reflector import Times

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import msgspec

Answer = bytes | list[bytes | Exception | float] | Exception


class OverError(Exception):
    """The script is at its end."""


class StaysOpen(Exception):  # noqa: N818 - no error, but a mark at the end of a watch
    """A watch that nothing comes from any more."""


class ScriptedServer:
    """Gives its answers one after the other, whatever is asked.

    A watch is a list of what comes: bytes, numbers for seconds that pass, and an error at its end.

    Attributes:
        asked: the query of each request, with the path as `path`.
        posted: what was created.
        patched: what was changed.
    """

    server = "https://api"

    def __init__(self, *script: Answer, time: VirtualTime | None = None) -> None:
        self.asked: list[dict[str, str]] = []
        self.posted: list[tuple[str, Mapping[str, Any]]] = []
        self.patched: list[tuple[str, Mapping[str, Any]]] = []
        self.patch_refusal: Exception | None = None
        self.refusal: Exception | None = None
        self._script: Iterator[Answer] = iter(script)
        self._time = time or VirtualTime()

    async def load(self) -> None:
        """There are no credentials."""

    async def close(self) -> None:
        """There is no connection."""

    async def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """The next answer, which must be that to a list."""
        answer = self._next(path, query)
        assert isinstance(answer, bytes), f"asked for a list, and the script has {answer!r}"
        return answer

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The next answer, which must be that to a watch."""
        assert silence > 0
        answer = self._next(path, query)
        assert isinstance(answer, list), f"asked for a watch, and the script has {answer!r}"
        yield self._chunks(answer)

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Note what is created, or refuse it."""
        if self.refusal is not None:
            raise self.refusal
        self.posted.append((path, body))

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Note what is changed, or refuse it."""
        if refusal := self.patch_refusal or self.refusal:
            raise refusal
        self.patched.append((path, body))

    async def _chunks(self, answer: list[bytes | Exception | float]) -> AsyncIterator[bytes]:
        for chunk in answer:
            if isinstance(chunk, StaysOpen):
                await asyncio.Event().wait()
            if isinstance(chunk, Exception):
                raise chunk
            if isinstance(chunk, bytes):
                yield chunk
            else:
                self._time.now += chunk

    def _next(self, path: str, query: Mapping[str, str]) -> Answer:
        self.asked.append({"path": path, **query})
        answer = next(self._script, OverError())
        if isinstance(answer, Exception):
            raise answer
        return answer


class VirtualTime:
    """Time that passes only where somebody sleeps.

    Attributes:
        now: in seconds.
        pauses: each sleep of more than nothing.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    @property
    def times(self) -> Times:
        """For those who need clock, randomness and waiting; all chances are the greatest."""
        return Times(clock=lambda: self.now, random=lambda: 1.0, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        if seconds:
            self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class RecordingStore:
    """Notes what it is told: `+name` new or changed, `-name` gone, `1!` doubts, `|` settled."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def put(self, meta: Any, _raw: msgspec.Raw) -> None:  # noqa: ANN401 - wire.Meta
        """An object is new, or has changed."""
        self.told.append(f"+{meta.name}")

    def remove(self, name: Any) -> None:  # noqa: ANN401 - wire.Name
        """An object is gone."""
        self.told.append(f"-{name.name}")

    def doubt(self, flaw: str) -> None:
        """Of a part of the list."""
        if flaw:
            self.told.append(f"{flaw.split(maxsplit=1)[0]}!")

    def settled(self) -> None:
        """What was told until now belongs together."""
        self.told.append("|")


def item(name: str, version: int = 1) -> dict[str, Any]:
    """An object of any kind."""
    return {"metadata": {"namespace": "default", "name": name, "resourceVersion": str(version)}}


def page(version: int, *items: Any, more: str = "") -> bytes:  # noqa: ANN401 - any JSON
    """A page of a list; `more` is its continue token."""
    return json.dumps(
        {"metadata": {"resourceVersion": str(version), "continue": more}, "items": items}
    ).encode()


def event(kind: str, obj: dict[str, Any]) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """The line of a watch that only moves on."""
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def status(code: int, message: str) -> bytes:
    """The line of a watch that ends it."""
    return event("ERROR", {"kind": "Status", "code": code, "message": message, "metadata": {}})
