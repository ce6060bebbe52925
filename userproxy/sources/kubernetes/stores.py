"""What the reflectors tell becomes objects, each by itself: of a bad one the last good state stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.model.snapshot import Node, Problem
from userproxy.sources import api
from userproxy.sources.decode import DecodedObject, Kind, ObjectKey, Scope, decode_slice
from userproxy.sources.kubernetes import wire
from userproxy.sources.services import decode_service

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.sources.index import ObjectIndex
    from userproxy.sources.kubernetes.wire import Meta, Name

log = structlog.get_logger("userproxy.kubernetes")

_service = msgspec.json.Decoder(api.Service)
_slice = msgspec.json.Decoder(api.EndpointSlice)


class ServiceStore:
    """Puts Services into the index, and remembers the UID of each, which Events need."""

    kind = Kind.SERVICE

    def __init__(self, index: ObjectIndex, settled: Callable[[], None], scope: Scope) -> None:
        self.settled = settled
        self.uids: dict[Name, str] = {}
        self._index = index
        self._flaws = _Flaws(index)
        self._scope = scope

    def put(self, meta: Meta, raw: msgspec.Raw) -> None:
        """An object is new, or has changed."""
        self.uids[meta.key] = meta.uid
        self._put(meta.key, raw)

    def remove(self, name: Name) -> None:
        """An object is gone."""
        self.uids.pop(name, None)
        self._index.report(self._owner(name), ())
        self._index.remove(ObjectKey(self.kind, *name))

    def doubt(self, flaw: str) -> None:
        """What of the list cannot be told apart; empty if there is nothing like that."""
        self._flaws.report(f"{self.kind} objects from the API", flaw)

    def _put(self, name: Name, raw: msgspec.Raw) -> None:
        """Put an object; what cannot be served as it stands leaves the last good one."""
        problems = []
        try:
            self._index.put(self._decode(raw))
        except api.DecodeError as error:
            problems.append(self._refused(name, str(error)))
        except Exception as error:  # noqa: BLE001 - a fault of ours costs one object, not all of them
            said = wire.one_line(f"userproxy fails to read it: {type(error).__name__}: {error}")
            problems.append(self._refused(name, said))
        self._index.report(self._owner(name), problems)

    def _refused(self, name: Name, error: str) -> Problem:
        log.error("an object is not taken", object=self._owner(name), error=error)
        message = f"{self.kind} {error}; its last good state stays"
        return Problem(f"{name.namespace}/{name.name}", "BadObject", message)

    def _owner(self, name: Name) -> str:
        return f"{self.kind} {name.namespace}/{name.name} from the API"

    def _decode(self, raw: msgspec.Raw) -> DecodedObject:
        service = wire.read(_service, raw)
        return decode_service(service, self._scope)


class SliceStore(ServiceStore):
    """Puts EndpointSlices into the index."""

    kind = Kind.ENDPOINT_SLICE

    def put(self, meta: Meta, raw: msgspec.Raw) -> None:
        """An object is new, or has changed."""
        self._put(meta.key, raw)

    def _decode(self, raw: msgspec.Raw) -> DecodedObject:
        return decode_slice(wire.read(_slice, raw), self._scope)


class NodeStore:
    """Remembers our own Node; while there is none, load balancers should not choose this node."""

    def __init__(self, name: str, index: ObjectIndex, settled: Callable[[], None]) -> None:
        self.settled = settled
        self.node = self._absent = Node(name, eligible=False)
        self._flaws = _Flaws(index)

    def put(self, meta: Meta, raw: msgspec.Raw) -> None:
        """An object is new, or has changed."""
        if meta.name != self._absent.name:
            return
        flaw = ""
        try:
            self.node = wire.decode_node(raw)
        except api.DecodeError as error:
            flaw = f"{error}; its last good state stays"
        self._flaws.report(f"Node {meta.name} from the API", flaw)

    def remove(self, name: Name) -> None:
        """An object is gone."""
        if name.name == self._absent.name:
            self.node = self._absent
            self._flaws.report(f"Node {name.name} from the API", "")

    def doubt(self, flaw: str) -> None:
        """What of the list cannot be told apart; empty if there is nothing like that."""
        self._flaws.report("Node objects from the API", flaw)


class _Flaws:
    """Tells what cannot be read, once for as long as it stays the same."""

    def __init__(self, index: ObjectIndex) -> None:
        self._index = index
        self._known: dict[str, str] = {}

    def report(self, owner: str, flaw: str) -> None:
        """Replace what is wrong with what belongs to an owner; empty: nothing."""
        if flaw and flaw != self._known.get(owner):
            log.error("an object is not taken", object=owner, error=flaw)
        self._known[owner] = flaw
        self._index.report(owner, [Problem(owner, "UnreadableObject", flaw)] if flaw else ())
