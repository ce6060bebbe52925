"""The poller's promises to whoever registers a socket with it, and the watch's to its members."""

from __future__ import annotations

import asyncio
import gc
import select
from typing import TYPE_CHECKING, Any

import pytest

from userproxy.net.poller import READ, WRITE, Poller, Ready, Watch
from userproxy.tests.sockets import Clock, Sockets, VirtualTimers

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("quiet")


class Owner:
    """Notes what it is told, and does something about it."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.masks: list[int] = []
        self.aborted = 0
        self._act = act

    def on_ready(self, mask: int) -> None:
        """Of `Ready`."""
        self.masks.append(mask)
        self._act()

    def abort(self) -> None:
        """Of `Ready`."""
        self.aborted += 1


@pytest.fixture
def poller(sockets: Sockets) -> Poller:
    return sockets.poller()


def readable(sockets: Sockets) -> socket:
    near, far = sockets.pair()
    far.send(b"x")
    return near


def must_not(what: str) -> Callable[[], None]:
    def fail() -> None:
        raise RuntimeError(what)

    return fail


def waits(poller: Poller) -> bool:
    """Whether whoever drives the poller would call it."""
    return bool(select.select([poller._epoll.fileno()], [], [], 0)[0])


def test_an_owner_is_told_what_it_asked_for_and_again_while_it_lasts(
    sockets: Sockets, poller: Poller
) -> None:
    near, owner = readable(sockets), Owner()
    poller.register(near.fileno(), READ, owner)
    poller.dispatch()
    assert set(owner.masks) == {READ}
    assert len(owner.masks) > 1
    near.recv(1)
    owner.masks.clear()
    poller.dispatch()
    assert owner.masks == []
    poller.modify(near.fileno(), READ | WRITE)
    poller.dispatch()
    assert set(owner.masks) == {WRITE}


def test_a_round_is_bounded_so_that_the_loop_gets_its_turn(sockets: Sockets, poller: Poller) -> None:
    owner = Owner()
    poller.register(readable(sockets).fileno(), READ, owner)
    poller.dispatch()
    assert len(owner.masks) == 8


def test_a_socket_that_is_handed_over_tells_its_new_owner(sockets: Sockets, poller: Poller) -> None:
    near, first, second = readable(sockets), Owner(), Owner()
    poller.register(near.fileno(), WRITE, first)
    poller.hand_over(near.fileno(), READ, second)
    poller.dispatch()
    assert first.masks == []
    assert set(second.masks) == {READ}


def test_an_unregistered_socket_is_left_alone_and_stays_open(sockets: Sockets, poller: Poller) -> None:
    near, owner = readable(sockets), Owner()
    poller.register(near.fileno(), READ, owner)
    poller.unregister(near.fileno())
    assert not waits(poller)
    poller.dispatch()
    assert owner.masks == []
    assert near.recv(1) == b"x"


def test_a_number_closed_in_a_round_reaches_no_new_owner_in_that_round(
    sockets: Sockets, poller: Poller
) -> None:
    # Both are ready in one round; whichever comes first closes the other and opens new sockets, which the
    # kernel would give the number just closed.
    ones = [readable(sockets), readable(sockets)]
    numbers = {one.fileno() for one in ones}
    newcomer = Owner(must_not("was told what was meant for a closed socket"))
    opened: list[socket] = []

    def close_the_other_than(one: socket) -> None:
        other = ones[1 - ones.index(one)]
        poller.close(other)
        poller.close(one)
        for near in sockets.pair():
            opened.append(near)
            poller.register(near.fileno(), READ, newcomer)

    owners = [Owner(lambda one=one: close_the_other_than(one)) for one in ones]  # type: ignore[misc]
    for one, owner in zip(ones, owners, strict=True):
        poller.register(one.fileno(), READ, owner)
    poller.dispatch()
    assert sorted(len(owner.masks) for owner in owners) == [0, 1]
    assert newcomer.masks == []
    assert newcomer.aborted == 0
    assert numbers.isdisjoint(near.fileno() for near in opened)
    assert [one.fileno() for one in ones] == [-1, -1]
    assert poller._closing == []


def test_outside_of_a_round_a_socket_is_closed_at_once(sockets: Sockets, poller: Poller) -> None:
    near = readable(sockets)
    poller.register(near.fileno(), READ, Owner())
    poller.close(near)
    assert near.fileno() == -1


def test_a_handler_that_raises_is_the_only_one_to_be_aborted(sockets: Sockets, poller: Poller) -> None:
    bad, good = Owner(must_not("a bug")), Owner()
    for owner in (bad, good):
        poller.register(readable(sockets).fileno(), READ, owner)
    poller.dispatch()
    assert bad.aborted == len(bad.masks) == 8
    assert (good.aborted, len(good.masks)) == (0, 8)


class Worse(Owner):
    """Cannot even be given up."""

    def abort(self) -> None:
        """Of `Ready`."""
        super().abort()
        raise RuntimeError("one more bug")


def test_a_round_that_fails_closes_what_it_was_to_close(sockets: Sockets, poller: Poller) -> None:
    near, doomed = readable(sockets), sockets.pair()[0]

    def act() -> None:
        poller.close(doomed)
        raise RuntimeError("a bug")

    poller.register(near.fileno(), READ, Worse(act))
    with pytest.raises(RuntimeError, match="one more bug"):
        poller.dispatch()
    assert doomed.fileno() == -1
    other = sockets.pair()[0]
    poller.close(other)
    assert other.fileno() == -1


def test_a_socket_that_cannot_be_registered_leaves_no_owner_behind(sockets: Sockets, poller: Poller) -> None:
    near = sockets.pair()[0]
    poller.register(near.fileno(), READ, Owner())
    with pytest.raises(FileExistsError):
        poller.register(near.fileno(), READ, first := Owner())
    assert all(handler.__self__ is not first for handler in poller._handlers.values())  # type: ignore[attr-defined]


def test_a_round_has_one_time(sockets: Sockets) -> None:
    clock = Clock()
    poller = sockets.poller(clock)
    near = readable(sockets)
    poller.register(near.fileno(), READ, Owner(lambda: near.recv(1)))
    began = clock.now
    clock.now += 5
    assert poller.now == began
    poller.dispatch()
    assert poller.now == began + 5


class Nested:
    """Two listeners' sockets on a nested poller; the first to be told pauses it."""

    def __init__(self, sockets: Sockets, outer: Poller) -> None:
        self.inner = sockets.poller()
        outer.nest(self.inner)
        self.owners = [Owner(lambda: outer.pause(self.inner)) for _ in range(2)]
        self.near = [readable(sockets) for _ in self.owners]
        for near, owner in zip(self.near, self.owners, strict=True):
            self.inner.register(near.fileno(), READ, owner)

    @property
    def told(self) -> int:
        """How often either was told."""
        return sum(len(owner.masks) for owner in self.owners)


def test_a_pause_holds_from_the_next_handler_on(sockets: Sockets, poller: Poller) -> None:
    nested = Nested(sockets, poller)
    poller.dispatch()
    assert nested.told == 1
    assert not waits(poller)
    poller.dispatch()
    assert nested.told == 1


def test_a_pause_holds_in_the_round_that_another_socket_called_it_in(
    sockets: Sockets, poller: Poller
) -> None:
    inner = sockets.poller()
    poller.nest(inner)
    accepts, relays = Owner(), Owner(lambda: poller.pause(inner))
    inner.register(readable(sockets).fileno(), READ, accepts)
    poller.register(readable(sockets).fileno(), READ, relays)
    poller.dispatch()
    # Whichever of the two came first in the first round, in no further one is anybody accepted.
    assert len(accepts.masks) <= 1
    assert len(relays.masks) == 8


def test_resuming_tells_what_came_meanwhile(sockets: Sockets, poller: Poller) -> None:
    nested = Nested(sockets, poller)
    poller.dispatch()
    poller.resume(nested.inner)
    assert waits(poller)
    poller.dispatch()
    assert nested.told == 2


def test_a_nested_poller_gets_one_turn_among_the_others(sockets: Sockets, poller: Poller) -> None:
    inner = sockets.poller()
    poller.nest(inner)
    accepts, relays = Owner(), Owner()
    inner.register(readable(sockets).fileno(), READ, accepts)
    poller.register(readable(sockets).fileno(), READ, relays)
    poller.dispatch()
    assert len(accepts.masks) == len(relays.masks) == 8


def test_a_loop_drives_it_until_it_is_shut(sockets: Sockets) -> None:
    async def scene() -> None:
        poller = sockets.poller()
        poller.attach(asyncio.get_running_loop())
        near, far = sockets.pair()
        told = asyncio.Event()

        def take() -> None:
            near.recv(1)
            told.set()

        owner = Owner(take)
        poller.register(near.fileno(), READ, owner)
        far.send(b"x")
        await told.wait()
        poller.shut()
        far.send(b"x")
        await asyncio.sleep(0)
        assert owner.masks == [READ]

    asyncio.run(scene())


def test_every_owner_is_let_go_of_with_its_socket(sockets: Sockets, poller: Poller) -> None:
    gc.disable()
    try:
        near = readable(sockets)
        owner: Ready = Owner()
        poller.register(near.fileno(), READ, owner)
        poller.close(near)
        assert not [holder for holder in gc.get_referrers(owner) if isinstance(holder, dict | list)]
    finally:
        gc.enable()


# --- the watch


class Member:
    """Counts how often it is looked at."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.looks = 0
        self.aborted = 0
        self.act = act

    def look(self) -> None:
        """What the watch calls."""
        self.looks += 1
        self.act()

    def abort(self) -> None:
        """The watch's call when `look` raises."""
        self.aborted += 1


def watch(timers: VirtualTimers) -> Watch[Any]:
    return Watch(timers.loop, 0.05, Member.look)


def test_a_watch_ticks_only_while_it_has_members() -> None:
    timers = VirtualTimers()
    watched, member = watch(timers), Member()
    assert timers.delays == []
    watched.add(1, member)
    watched.add(2, member)
    assert timers.delays == [0.05]
    timers.tick()
    assert member.looks == 2
    assert timers.delays == [0.05]
    watched.members.pop(1, None)
    watched.members.pop(2, None)
    timers.tick()
    assert member.looks == 2
    assert timers.delays == []
    watched.add(3, member)
    timers.tick()
    assert member.looks == 3


def test_who_leaves_during_a_tick_is_looked_at_no_more() -> None:
    timers = VirtualTimers()
    watched, second = watch(timers), Member()
    watched.add(1, Member(lambda: watched.members.pop(2, None)))
    watched.add(2, second)
    timers.tick()
    assert second.looks == 0


def test_a_member_that_fails_is_given_up_and_the_others_are_looked_at_as_before() -> None:
    timers = VirtualTimers()
    watched, bad, good = watch(timers), Member(must_not("a bug")), Member()
    watched.add(1, bad)
    watched.add(2, good)
    timers.tick()
    timers.tick()
    assert (bad.looks, bad.aborted) == (1, 1)
    assert (good.looks, good.aborted) == (2, 0)


def test_a_watch_that_is_stopped_looks_at_nobody() -> None:
    timers = VirtualTimers()
    watched, member = watch(timers), Member()
    watched.add(1, member)
    watched.stop()
    assert timers.delays == []
    assert not watched.members
