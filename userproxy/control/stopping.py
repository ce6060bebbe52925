"""The end of the daemon: nobody is refused who could be served, and those who are served get their time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from userproxy.config.settings import OnStop
from userproxy.control.loop import ReconcileLoop
from userproxy.model.actions import CaptureChange
from userproxy.model.service import Protocol
from userproxy.model.state import Refuse, ToListener
from userproxy.netfilter import NetfilterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from userproxy.config import Config
    from userproxy.control.reconcile import Reconciler
    from userproxy.control.sides import Kernel, Sides
    from userproxy.model.snapshot import Snapshot
    from userproxy.model.state import Frontend, NodeState
    from userproxy.sources import Source

log = structlog.get_logger("userproxy")

# A client whose SYN had come to a listener has its place in the queue by then, or has sent another SYN.
ARRIVAL_SECONDS = 0.3


class StopError(Exception):
    """The daemon has ended, and something of it is left. One line, with the remedy."""


async def stop(config: Config, sides: Sides, state: NodeState) -> None:
    """Serve those who have come, and end.

    Args:
        config: of the daemon.
        sides: that carry connections; they are of no more use afterwards.
        state: what was applied last.

    Raises:
        StopError: something is left in the kernel that was to be removed.
    """
    log.info("stopping", drain_seconds=config.drain_seconds, on_stop=config.on_stop.value)
    await sides.crew.stop()  # the rules choose
    if config.on_stop is OnStop.KEEP:
        await _open(sides, config.drain_seconds, state)
    else:
        await _remove(sides, config.drain_seconds, state)


@contextlib.asynccontextmanager
async def following(
    source: Source, reconciler: Reconciler, on_failure: Callable[[Exception, float], None]
) -> AsyncIterator[None]:
    """While connections have their time, the pods that new ones go to are those that there are.

    Args:
        source: of what is wanted.
        reconciler: has the captures follow it, and nothing else.
        on_failure: called when that failed, with the seconds to the next try.
    """
    loop, failure = ReconcileLoop(reconciler.follow, on_failure), None

    def publish(snapshot: Snapshot) -> None:
        reconciler.take(snapshot)
        loop.notify()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (source.run(publish), loop.run())]
        try:
            yield
        except StopError as error:  # raised below: the group would wrap it in a group
            failure = error
        for task in tasks:
            task.cancel()
    if failure is not None:
        raise failure


async def _open(sides: Sides, seconds: float, state: NodeState) -> None:
    """New connections go to the pods from now on; the rules that send them there stay.

    Where nothing is behind a listener, they are refused. Connections that netfilter carries go on.
    """
    change = CaptureChange(put=dict.fromkeys(alone(state), Refuse()), workers=0)
    await _change(
        sides.kernel, change, "new clients go to the pods once the workers have said that they leave"
    )
    await asyncio.sleep(ARRIVAL_SECONDS)
    cut = await sides.workers.drain(seconds)
    await _forget_listeners(sides.kernel, state)
    log.info("stopped; the rules stay", connections_cut=cut)


def alone(state: NodeState) -> list[Frontend]:
    """The frontends that nobody serves where no worker accepts: there is no pod behind their listener."""
    targets = state.captures.items()
    return [key for key, target in targets if isinstance(target, ToListener) and target.behind is None]


async def _remove(sides: Sides, seconds: float, state: NodeState) -> None:
    """New clients are refused: not captured, they would be sent on to wherever a route for Service IPs leads.

    The table stays until the connections are over: without any nat chain, the kernel would stop translating
    their packets.
    """
    change = CaptureChange(put=dict.fromkeys(state.captures, Refuse()))
    await _change(sides.kernel, change, "new clients are not refused while stopping")
    cut, left = await asyncio.gather(sides.workers.drain(seconds), sides.flows.drain(seconds))
    try:
        await sides.kernel.remove()
    except NetfilterError as error:
        raise StopError(f"{error}; run `userproxy cleanup` to remove what is left") from None
    log.info("stopped", connections_cut=cut, connections_left_to_the_kernel=left)


async def _forget_listeners(kernel: Kernel, state: NodeState) -> None:
    """Have all clients go to the pods, also those whose ports conntrack knows to lead to a listener.

    That is a client of UDP that goes on asking, and one of TCP that comes again from the port of a connection
    that has just been reset.
    """
    listeners = {each.listener for each in state.captures.values() if isinstance(each, ToListener)}
    try:
        if listeners:
            await kernel.forget_redirected(listeners)
    except NetfilterError as error:
        log.warning("some clients may have to wait until conntrack forgets them", error=str(error))


async def forget_relayed(kernel: Kernel, state: NodeState) -> None:
    """Have the clients of UDP go to the pods: conntrack would lead them on to where nobody listens."""
    behind = {
        key: target.behind.pods if target.behind else ()
        for key, target in state.captures.items()
        if key.protocol is Protocol.UDP and isinstance(target, ToListener)
    }
    try:
        if behind:
            await kernel.forget(behind)
    except NetfilterError as error:
        log.warning("clients of UDP may have to wait until conntrack forgets them", error=str(error))


async def _change(kernel: Kernel, change: CaptureChange, otherwise: str) -> None:
    try:
        await kernel.apply(change)
    except NetfilterError as error:
        log.error(otherwise, error=str(error))  # noqa: TRY400
