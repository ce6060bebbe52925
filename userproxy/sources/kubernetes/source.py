"""Services from a Kubernetes API server, and the node that this daemon runs on.

Nothing is published before Services, EndpointSlices and Nodes have been listed once. From then on what is
known is served, for as long as the server may be away.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from userproxy.model.snapshot import EMPTY, Problem, Snapshot
from userproxy.sources import api
from userproxy.sources.decode import EVERYTHING, Scope
from userproxy.sources.index import ObjectIndex
from userproxy.sources.kubernetes.access import Access
from userproxy.sources.kubernetes.backoff import Backoff
from userproxy.sources.kubernetes.credentials import KubeconfigError
from userproxy.sources.kubernetes.events import Recorder
from userproxy.sources.kubernetes.reflector import Reflector, Resource, Server, Store, Times
from userproxy.sources.kubernetes.stores import NodeStore, ServiceStore, SliceStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from userproxy.model.counters import Counters
    from userproxy.model.snapshot import Notice

__all__ = ["KubeconfigError", "KubernetesSource"]

log = structlog.get_logger("userproxy.kubernetes")

_BURST_SECONDS = 0.02
"""Between two Snapshots, while changes keep coming."""


class Connection(Server, Protocol):
    """What the source needs of `Access`."""

    server: str

    async def load(self) -> None:
        """As of `Access.load`."""

    async def close(self) -> None:
        """As of `Access.close`."""

    async def post(self, path: str, body: Mapping[str, object]) -> None:
        """As of `Access.post`."""

    async def patch(self, path: str, body: Mapping[str, object]) -> None:
        """As of `Access.patch`."""


class KubernetesSource:
    """Follows an API server, for as long as the daemon runs.

    Attributes:
        kind: for `userproxy status`.
    """

    kind = "kubernetes"

    def __init__(
        self,
        kubeconfig: Path | None,
        *,
        node_name: str,
        scope: Scope = EVERYTHING,
        connect: Callable[[Path | None], Connection] | None = None,
        counters: Counters | None = None,
        times: Times | None = None,
    ) -> None:
        """Make a source; nothing is read yet.

        Args:
            kubeconfig: the file; None for the ServiceAccount of the pod that this process runs in.
            node_name: of this daemon's own Node.
            scope: what is served.
            connect: makes a connection to the API server; by default an `Access`.
            counters: of this process.
            times: clock, randomness and waiting.
        """
        # Spreads clients; nothing secret depends on it.
        self._times = times or Times(random=random.SystemRandom().random)
        self._index = ObjectIndex()
        self._dirty = asyncio.Event()
        self._node = NodeStore(node_name, self._index, self._settled)
        self._services = ServiceStore(self._index, self._settled, scope)
        slices = SliceStore(self._index, self._settled, scope)
        stores: tuple[Store, ...] = (self._services, slices, self._node)
        self._connections = [(connect or partial(Access, counters=counters))(kubeconfig) for _ in range(4)]
        resources = _resources(node_name, scope.proxy_name)
        self._reflectors = [
            Reflector(resource, server, store, self._backoff(), self._note_error, self._times)
            for resource, server, store in zip(resources, self._connections, stores, strict=False)
        ]
        self._recorder = Recorder(
            self._connections[-1], node_name, self._services.uids.get, self._backoff(), self._times
        )
        self._index_snapshot = EMPTY
        self._snapshot = EMPTY

    @property
    def synced(self) -> bool:
        """Whether each kind of object has been listed once."""
        return all(reflector.synced for reflector in self._reflectors)

    @property
    def problem(self) -> Problem | None:
        """Why the server does not tell."""
        errors = sorted({reflector.error for reflector in self._reflectors if reflector.error})
        return Problem(self.kind, "ApiServerUnavailable", "; ".join(errors)) if errors else None

    def stale_seconds(self) -> float:
        """How long ago the server was last known to have told everything; 0 while it does."""
        return max(reflector.stale_seconds() for reflector in self._reflectors)

    async def check(self) -> None:
        """Read the credentials.

        Raises:
            KubeconfigError: that is not possible; one line, with the remedy.
        """
        for connection in self._connections:
            await connection.load()

    async def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Publish a Snapshot once synced, and a new one after each change, until cancelled."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            for connection in self._connections:
                stack.push_async_callback(connection.close)
            for reflector in self._reflectors:
                tasks.create_task(reflector.run(), name=f"kubernetes: {reflector.resource.name}")
            tasks.create_task(self._recorder.run(), name="kubernetes: events")
            await self._publish(publish)

    def tell(self, problems: Sequence[Problem]) -> None:
        """Write an Event for each problem that the author of a Service must know of."""
        self._recorder.tell(problems)

    def announce(self, notice: Notice) -> None:
        """Write an Event on the Service, or count it in the one that is there."""
        self._recorder.announce(notice)

    async def _publish(self, publish: Callable[[Snapshot], None]) -> None:
        started = self._times.clock()
        published: Snapshot | None = None
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not self.synced:
                continue
            snapshot = self._current()
            if published is None:
                log.info(
                    "synced",
                    server=self._connections[0].server,
                    service_ports=len(snapshot.services),
                    seconds=round(self._times.clock() - started, 3),
                )
            if snapshot is not published:
                publish(snapshot)
                published = snapshot
            await self._times.sleep(_BURST_SECONDS)

    def _current(self) -> Snapshot:
        """The desired state now: the very same value as the last time if nothing has changed."""
        indexed = self._index.snapshot()
        if indexed is not self._index_snapshot or self._node.node != self._snapshot.node:
            self._index_snapshot = indexed
            self._snapshot = msgspec.structs.replace(indexed, node=self._node.node)
        return self._snapshot

    def _settled(self) -> None:
        self._dirty.set()

    def _backoff(self) -> Backoff:
        return Backoff(self._times.random)

    def _note_error(self, changed: Reflector) -> None:
        """Say what is wrong, once for all reflectors that suffer from the same."""
        others = [reflector.error for reflector in self._reflectors if reflector is not changed]
        if changed.error and changed.error not in others:
            effect = "what is known stays in effect" if self.synced else "nothing is served until it does"
            log.error("the API server does not tell", error=changed.error, effect=effect)
        elif not self.problem:
            log.info("in touch with the API server", server=self._connections[0].server)
        self._dirty.set()


def _resources(node_name: str, service_proxy_name: str | None) -> tuple[Resource, Resource, Resource]:
    """What to follow, by kube-proxy's label selectors; the proxy's name is on Services and on their slices.

    The EndpointSlice controller copies a Service's labels to its slices.
    """
    ours = f"={service_proxy_name}" if service_proxy_name else ""
    our_node = {"fieldSelector": f"metadata.name={node_name}"}
    selectors = {
        "labelSelector": f"!{api.HEADLESS_LABEL},{'' if ours else '!'}{api.PROXY_NAME_LABEL}{ours}",
    }
    return (
        Resource("services", "/api/v1/services", "ServiceList", selectors),
        # Their objects are larger: smaller pages hold the loop no longer.
        Resource(
            "endpointslices",
            "/apis/discovery.k8s.io/v1/endpointslices",
            "EndpointSliceList",
            selectors,
            page=100,
        ),
        Resource("nodes", "/api/v1/nodes", "NodeList", our_node, namespaced=False),
    )
