"""Everything of ours in the kernel, as the control side uses it: captures, and the routes that go with them.

Netlink calls block, so each runs in a thread, one at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Self

import msgspec

from userproxy.model.address import family_of
from userproxy.model.counters import Counters
from userproxy.model.state import ToListener, ToPods
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.bypass.look import BypassWatch
from userproxy.netfilter.conntrack.flows import Flow, flows
from userproxy.netfilter.conntrack.stale import forget, forget_redirected
from userproxy.netfilter.ending.ending import Ended, end
from userproxy.netfilter.host import Host
from userproxy.netfilter.nftables import Nftables
from userproxy.netfilter.routes import Routes

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Mapping
    from types import TracebackType

    from userproxy.model.actions import CaptureChange
    from userproxy.model.address import Address
    from userproxy.model.state import Frontend, NodeState, Target
    from userproxy.netfilter.bypass.claims import Taker
    from userproxy.netfilter.elements.pins import Kept

# Nobody tells when a route is taken away, so all are read at every so many repairs.
_ROUTES_EVERY = 15
# Hooks that steered Services need go when nothing has been steered at so many repairs: that costs whoever has
# packets in a queue some of them, so it is not to happen at each Service that comes and goes.
_IDLE_REPAIRS = 5


class Kernel:
    """Our part of the kernel's state, in the network namespace of this thread. Lives as long as the daemon.

    Args:
        host_ips: the source of the host's own connections to Service IPs, where no other route gives one; at
            most one of each family, none to leave it to the kernel.
        counters: of this process.

    Attributes:
        counters: of this process: what the kernel refuses, and the flows that it forgets.

    Raises:
        NetfilterError: the kernel cannot be spoken to; likewise each of the methods.
    """

    def __init__(self, host_ips: Collection[str], counters: Counters | None = None) -> None:
        self._host_ips = host_ips
        self.counters = Counters() if counters is None else counters
        self._nftables = Nftables()
        self._routes = Routes()
        self._watch = BypassWatch()
        self._host = Host()
        self._lock = asyncio.Lock()
        self._ending = asyncio.Lock()
        self._uses: Counter[str] = Counter()  # by Service IP, of how many frontends
        self._repairs = 0
        self._turned_away = 0  # by the table's counter, when it was read last
        self._idle = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nftables.close()
        self._routes.close()
        self._watch.close()
        self._host.close()

    @property
    def host(self) -> Host:
        """What the node has of the network. It is read at once, and in no time."""
        return self._host

    def inherit(self, owner: socket.socket | None) -> None:
        """Go on with the socket that owns our table, if the one before has left it; then `start`."""
        if owner is not None:
            self._nftables.close()
            self._nftables = Nftables(owner)

    async def give(self) -> socket.socket | None:
        """The socket that owns our table, for whoever comes next; None if there is none.

        What was asked through it is answered: a task that was cancelled has left a thread behind that reads.
        """
        return await asyncio.to_thread(self._nftables.give)

    @property
    def owned(self) -> bool:
        """Whether nobody else can change our table; else what they change is put back by `repair`."""
        return self._nftables.owned

    @property
    def can_queue(self) -> bool:
        """Whether packets can wait for a steering process; known once it has started."""
        return self._nftables.can_queue

    @property
    def can_limit(self) -> bool:
        """Whether limits hold where packets are sent straight to pods; likewise."""
        return self._nftables.can_limit

    def missing_features(self) -> tuple[str, ...]:
        """What the kernel or our privileges lack, each a line with its remedy. Nothing is changed."""
        return self._nftables.missing_kernel_features()

    async def start(self) -> NodeState:
        """Adopt what an earlier daemon left, or begin with nothing; returns what that is.

        Where that fails, nothing of ours is there that was not before.
        """
        async with self._lock:
            state = await asyncio.to_thread(self._nftables.ensure)
            self._uses = Counter(frontend.address.ip for frontend in state.captures)
            self._turned_away = await asyncio.to_thread(
                self._nftables.turned_away
            )  # the one before told of them
            try:
                await self._ensure_routes()
            except NetfilterError:
                if not state.captures:
                    await asyncio.to_thread(self._nftables.remove)
                raise
            await asyncio.to_thread(self._watch.look, tuple(state.captures))  # to know who was there before
            return state

    async def apply(self, change: CaptureChange) -> None:
        """Change captures, atomically. A route is there before its capture, and goes after it."""
        async with self._lock:
            before = self._nftables.captures
            uses = Counter(frontend.address.ip for frontend in change.put if frontend not in before)
            uses.subtract(frontend.address.ip for frontend in change.remove if frontend in before)
            new = [ip for ip, count in uses.items() if count > 0 and not self._uses[ip]]
            gone = [ip for ip, count in uses.items() if count < 0 and not self._uses[ip] + count]
            if new:
                await asyncio.to_thread(self._routes.add, new, self._host_ips)
            try:
                await asyncio.to_thread(self._nftables.apply, change)
            except NetfilterError:
                for family in map(family_of, self._host_ips):
                    self.counters.nftables_failures[family] += 1
                raise
            self._uses.update(uses)
            if gone:
                for ip in gone:
                    del self._uses[ip]
                await asyncio.to_thread(self._routes.discard, gone, self._host_ips)

    async def move(self, host_ips: Collection[str]) -> None:
        """Have the host's own connections to Service IPs come from other addresses from now on.

        Puts back the routes that went with an address, too.
        """
        async with self._lock:
            self._host_ips = host_ips
            await self._ensure_routes()

    async def forget(self, frontends: Mapping[Frontend, Collection[Address]]) -> None:
        """Forget the UDP flows to these frontends, but for those that lead to the addresses under each.

        Of TCP frontends, those that nobody has translated or answered.

        Conntrack does not know which flows came from outside: so those are spared too that lead where the
        other one leads of a frontend and the same for packets from outside.
        """
        async with self._lock:
            captures = self._nftables.captures
            others = {
                other: destinations(captures.get(other))
                for frontend in frontends
                for other in (msgspec.structs.replace(frontend, outside=not frontend.outside),)
                if other not in frontends
            }
            for family in sorted({frontend.address.family for frontend in frontends}):
                began = monotonic()
                spared = {**others, **frontends}
                own = {each: spared[each] for each in spared if each.address.family is family}
                self.counters.conntrack_deleted[family] += await asyncio.to_thread(forget, own)
                self.counters.conntrack_times[family].observe(monotonic() - began)

    async def forget_redirected(self, listeners: Collection[Address]) -> None:
        """Forget the flows to these listeners, which are no more: their clients are reset, if they speak."""
        async with self._lock:
            await asyncio.to_thread(forget_redirected, listeners)

    async def flows(self, frontends: Collection[Frontend] = ()) -> list[Flow]:
        """The connections that the kernel carries to pods, to these frontends or to any of others too."""
        return await asyncio.to_thread(flows, frontends)

    async def end(self, flows: Collection[Flow]) -> Ended:
        """End these connections, whichever are still the ones that were read; within some seconds.

        Those of another call wait for this one.
        """
        async with self._ending:
            return await asyncio.to_thread(end, flows)

    async def alive(self) -> frozenset[int]:
        """The workers of which the kernel has heard a heartbeat lately, by their places."""
        async with self._lock:
            return await asyncio.to_thread(self._nftables.alive)

    async def pins(self) -> list[Kept]:
        """The pods that clients with affinity keep, as far as their connections went straight to pods."""
        async with self._lock:
            return await asyncio.to_thread(self._nftables.pins)

    async def used(self) -> set[Frontend]:
        """The frontends from which the kernel has sent a new connection to a pod lately."""
        async with self._lock:
            return await asyncio.to_thread(self._nftables.used)

    async def repair(self) -> tuple[str, ...]:
        """Put back what somebody else has changed of ours; returns what that was.

        Also removes what nothing of ours has needed for a while.
        """
        async with self._lock:
            changes = await asyncio.to_thread(self._nftables.verify)
            if changes:
                await asyncio.to_thread(self._nftables.ensure)
            await self._count()
            self._idle = self._idle + 1 if self._nftables.has_idle_hooks else 0
            if self._idle > _IDLE_REPAIRS:
                await asyncio.to_thread(self._nftables.prune)
            self._repairs += 1
            if self._repairs % _ROUTES_EVERY == 0:
                await self._ensure_routes()
            return changes

    async def bypassed(self) -> Mapping[Frontend, Taker]:
        """The captured frontends whose connections somebody else's rules take before ours see them."""
        async with self._lock:
            captures = tuple(self._nftables.captures)
        return await asyncio.to_thread(self._watch.look, captures)  # by sockets of its own: nobody need wait

    async def remove(self) -> None:
        """Leave no trace: the table and the routes are gone."""
        async with self._lock:
            await asyncio.to_thread(self._nftables.remove)
            await asyncio.to_thread(self._routes.remove)

    async def _count(self) -> None:
        now = await asyncio.to_thread(self._nftables.turned_away)
        before = self._turned_away if now >= self._turned_away else 0  # the table was made anew
        self.counters.clients_turned_away += now - before
        self._turned_away = now

    async def _ensure_routes(self) -> None:
        await asyncio.to_thread(self._routes.ensure, tuple(self._uses), self._host_ips)


def destinations(target: Target | None) -> tuple[Address, ...]:
    """Where the flows of a target lead."""
    match target:
        case ToListener(listener):
            return (listener,)
        case ToPods(pods=pods, others=others):
            return pods + others
        case _:
            return ()
