"""Everything of ours in the kernel, as the control side uses it: the captures, and the routes that go with them.

Netlink calls block, so each runs in a thread, one at a time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from userproxy.netfilter import conntrack
from userproxy.netfilter.nftables import Nftables
from userproxy.netfilter.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from userproxy.model.plan import CaptureChange, Frontend, Target


# Nobody tells when a route is taken away, so all are read at every so many repairs.
_ROUTES_EVERY = 15


class Kernel:
    """Our part of the kernel's state, in the network namespace of this thread. Lives as long as the daemon.

    Args:
        host_ip: the source of the host's own connections to Service IPs, where no other route gives one.

    Raises:
        NetfilterError: the kernel cannot be spoken to; likewise each of the methods.
    """

    def __init__(self, host_ip: str) -> None:
        self._host_ip = host_ip
        self._nftables = Nftables()
        self._routes = Routes()
        self._lock = asyncio.Lock()
        self._captures: dict[Frontend, Target] = {}
        self._addresses: frozenset[str] = frozenset()
        self._repairs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nftables.close()
        self._routes.close()

    def missing_features(self) -> tuple[str, ...]:
        """What the kernel or our privileges lack, each a line with its remedy. Nothing is changed."""
        return self._nftables.missing_kernel_features()

    async def start(self) -> dict[Frontend, Target]:
        """Adopt what an earlier daemon left, or begin with nothing; returns the captures."""
        async with self._lock:
            self._captures = await asyncio.to_thread(self._nftables.ensure)
            await self._ensure_routes(self._captures)
            return dict(self._captures)

    async def apply(self, change: CaptureChange) -> None:
        """Change captures, atomically. A route is there before its capture, and goes after it."""
        async with self._lock:
            after = {
                frontend: target
                for frontend, target in self._captures.items()
                if frontend not in change.remove
            } | change.put
            if _addresses(after) - self._addresses:
                await self._ensure_routes([*self._captures, *after])
            await asyncio.to_thread(self._nftables.apply, change)
            self._captures = after
            if self._addresses != _addresses(after):
                await self._ensure_routes(after)

    async def forget(self, frontends: Iterable[Frontend]) -> None:
        """Forget the UDP flows to these frontends."""
        async with self._lock:
            await asyncio.to_thread(conntrack.forget, frontends)

    async def repair(self) -> tuple[str, ...]:
        """Put back what somebody else has changed of ours; returns what that was."""
        async with self._lock:
            changes = await asyncio.to_thread(self._nftables.verify)
            if changes:
                await asyncio.to_thread(self._nftables.ensure)
            self._repairs += 1
            if self._repairs % _ROUTES_EVERY == 0:
                await self._ensure_routes(self._captures)
            return changes

    async def remove(self) -> None:
        """Leave no trace: the table and the routes are gone."""
        async with self._lock:
            await asyncio.to_thread(self._nftables.remove)
            await asyncio.to_thread(self._routes.remove)

    async def _ensure_routes(self, frontends: Iterable[Frontend]) -> None:
        addresses = _addresses(frontends)
        await asyncio.to_thread(self._routes.ensure, addresses, self._host_ip)
        self._addresses = addresses


def _addresses(frontends: Iterable[Frontend]) -> frozenset[str]:
    return frozenset(frontend.address.ip for frontend in frontends)
