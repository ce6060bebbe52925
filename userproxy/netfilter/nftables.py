"""The kernel's side of the captures: one table of our own, read, adopted, changed and removed."""

from __future__ import annotations

import contextlib
import errno
import functools
import threading
from typing import TYPE_CHECKING, Self

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.elements.access import USED, alive_among, constant_elements, used_by
from userproxy.netfilter.elements.pins import PINS, kept_by, pin_changes, retimed, sorted_out
from userproxy.netfilter.elements.table import Elements, chains_of, state_of
from userproxy.netfilter.features import features_of, is_asking
from userproxy.netfilter.ownership import Ownership
from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.language import TABLE
from userproxy.netfilter.ruleset.made import Pick, Pin, Relay, chains_made, made_among
from userproxy.netfilter.ruleset.sets import ALIVE, TURNED_AWAY
from userproxy.netfilter.ruleset.steering import Queue
from userproxy.netfilter.wire import encode, packing, read_back
from userproxy.netfilter.wire.netlink import RefusedError, Socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from userproxy.model.actions import CaptureChange
    from userproxy.model.state import Frontend, NodeState, Target
    from userproxy.netfilter.elements.element import ClientPin, Element
    from userproxy.netfilter.elements.pins import Kept, PinChanges
    from userproxy.netfilter.features import Features
    from userproxy.netfilter.ruleset.made import Made
    from userproxy.netfilter.wire.netlink import Message

NETLINK_NETFILTER = 12

_REMEDIES = {
    errno.EPERM: "run as root or grant CAP_NET_ADMIN",
    errno.ENOENT: "the kernel lacks a part of nf_tables: load nft_nat, nft_masq, nft_reject_inet, nft_numgen",
    errno.EOPNOTSUPP: "the kernel is too old or lacks a part of nf_tables: 5.9 or later is needed",
    errno.EPROTONOSUPPORT: "the kernel has no netfilter: load nfnetlink and nf_tables",
    errno.ETIMEDOUT: "the kernel did not answer; is another program holding the nf_tables lock?",
}
_CHANGED_BY_OTHERS = (errno.ENOENT, errno.EEXIST)
_SETTLE_ATTEMPTS = 3
_EXAMPLES: frozenset[Made] = frozenset({Pick(2), Pick(2, sticky=True), Pin(1), Relay(1)})


class Nftables:
    """Our table in the network namespace of the thread that makes the object.

    Every call blocks for at most a few seconds, and may come from any thread, one at a time (a lock sees to
    it): call it with `asyncio.to_thread`. The object lives as long as the daemon; another one may take over
    from it (`ensure`) once it is closed, or with its socket.

    Args:
        owner: the socket that owns the table, if the daemon before this one has left it.

    Raises:
        NetfilterError: the kernel has no netfilter.
    """

    def __init__(self, owner: socket.socket | None = None) -> None:
        try:
            self._socket = Socket(NETLINK_NETFILTER, inherited=owner)
        except OSError as error:
            raise _with_remedy("cannot speak to netfilter", error) from error
        self._ownership = Ownership(self._socket)
        self._lock = threading.Lock()
        self._found: Features | None = None  # until the kernel has been asked
        self._elements: Elements | None = None  # until the kernel's side is known
        self._made: frozenset[Made] = frozenset()
        self._certain = False  # that the table is as we have made it, unless somebody else has changed it
        self._generation = -1  # of the namespace's ruleset, when our table was last known to be as it should

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; the table stays, and anybody may own it."""
        self._socket.close()

    @property
    def owner(self) -> socket.socket | None:
        """The socket that owns the table; None once it is closed."""
        return self._socket.raw if self._socket.raw.fileno() >= 0 else None

    def give(self) -> socket.socket | None:
        """The same, once nobody waits for an answer through it: he would take its next owner's."""
        with self._lock:
            return self.owner

    @property
    def owned(self) -> bool:
        """Whether nobody else can change the table."""
        return self._elements is not None and bool(self._ownership.flags) and self.owner is not None

    @property
    def captures(self) -> Mapping[Frontend, Target]:
        """What the kernel captures, as far as it is known; it changes with each `apply`."""
        return self._elements.captures if self._elements else {}

    def ensure(self) -> NodeState:
        """See that our table is there and intact; returns what the kernel holds now.

        A new object adopts an intact table: it owns it from then on, where the kernel can, and touches
        nothing else. A table that is missing, tampered with, of another version or without an owner is
        replaced in one transaction, with what this object knows, or what could be read,
        and with the pods that clients keep.

        Raises:
            NetfilterError: what was there before still is.
        """
        with self._lock, _explained("cannot set the nftables table up"):
            return self._ensure()

    def apply(self, change: CaptureChange) -> None:
        """Change captures, atomically. A table that others have removed or changed is restored on the way.

        Raises:
            NetfilterError: the captures are those of before.
            ValueError: an address that cannot be captured; likewise.
        """
        with self._lock, _explained("cannot change the captures"):
            if self._elements is None:
                self._ensure()
            try:
                self._apply(change)
            except RefusedError as error:
                if error.refusal.errno not in _CHANGED_BY_OTHERS:
                    raise
                self._ensure()
                self._apply(change)

    def verify(self) -> tuple[str, ...]:
        """What others have changed in our table since it was last seen intact; empty if nothing.

        Costs one question while nobody, in any table, has changed anything, and another one if somebody has
        and our table is ours alone; otherwise that is read in full.

        Raises:
            NetfilterError: the table could not be read.
        """
        with self._lock, _explained("cannot read the nftables table"):
            now = read_back.generation(self._socket)
            if now == self._generation:
                return ()
            if self._certain and self._ownership.is_ours():
                self._generation = now
                return ()
            static = read_back.read_static(self._socket)
            found = self._differences(self._elements or Elements(), static, self._read_elements(static))
            if not found:
                self._generation = now
            return tuple(found)

    @property
    def can_queue(self) -> bool:
        """Whether packets can wait for a steering process; known once the table is there."""
        return self._found is not None and self._found.queues

    @property
    def can_limit(self) -> bool:
        """Whether a connection too many can be refused where packets are sent straight to pods; likewise."""
        return self._found is not None and self._found.limits

    def turned_away(self) -> int:
        """How many first packets were refused for a connection too many, since the table was made.

        Raises:
            NetfilterError: it cannot be read.
        """
        with self._lock, _explained("cannot read how many connections were too many"):
            return read_back.read_counter(self._socket, TURNED_AWAY)

    @property
    def has_idle_hooks(self) -> bool:
        """Whether packets pass hooks that have them wait for a steering process, and none waits any more."""
        return self._elements is not None and not self._elements.queues and bool(_queues(self._made))

    def prune(self) -> None:
        """Remove these hooks. The kernel then drops packets that wait in any queue of the namespace.

        Connections live on: their translation is conntrack's, as long as there is another nat chain.

        Raises:
            NetfilterError: they are still there.
        """
        with self._lock, _explained("cannot remove the hooks of steered Services"):
            if self.has_idle_hooks:
                gone = _queues(self._made)
                self._commit(encode.removal(chains_made(gone)))
                self._made -= gone

    def used(self) -> set[Frontend]:
        """The frontends from which the kernel has sent a new connection to a pod within a minute or so.

        Raises:
            NetfilterError: they cannot be read.
        """
        with self._lock, _explained("cannot read which Services are in use"):
            return used_by(read_back.read_elements(self._socket, USED))

    def pins(self) -> list[Kept]:
        """The pods that clients with affinity keep, as rules have noted it.

        Raises:
            NetfilterError: they cannot be read.
        """
        with self._lock, _explained("cannot read which pods clients keep"):
            return kept_by(read_back.read_pins(self._socket, PINS))

    def alive(self) -> frozenset[int]:
        """The workers of which the kernel has heard a heartbeat lately, by their places.

        Raises:
            NetfilterError: they cannot be read.
        """
        with self._lock, _explained("cannot read which workers are alive"):
            return alive_among(read_back.read_elements(self._socket, [ALIVE.name]))

    def remove(self) -> bool:
        """Remove the table, and forget the captures; returns whether it was there.

        If no other nat chain exists in the namespace, the kernel then stops translating established
        connections too: remove the captures first, let connections drain, and the table last.

        Raises:
            NetfilterError: the table is still there.
        """
        with self._lock, _explained("cannot remove the nftables table"):
            self._ownership.check()
            there = bool(read_back.read_static(self._socket))
            self._socket.batch([encode.table(), encode.delete_table()])
            self._elements, self._made, self._generation = None, frozenset(), -1
            return there

    def missing_kernel_features(self) -> tuple[str, ...]:
        """What the kernel, or this process's privileges, lack for our ruleset; each a line with its remedy.

        The kernel is asked to check the whole ruleset, and changes nothing. It cannot be asked while another
        daemon has the table, or packets may wait in its queue: what that one is, the kernel can do.
        """
        with self._lock:
            try:
                if self._ownership.is_elsewhere() or is_asking(read_back.read_static(self._socket)):
                    return ()
                self._socket.batch(self._replacement(_EXAMPLES, Elements(), []), commit=False)
            except (RefusedError, OSError) as error:
                return (str(_with_remedy("the nftables ruleset cannot be loaded", error)),)
            return ()

    def _features(self) -> Features:
        """What the kernel has; it is asked once, while the table is ours."""
        if self._found is None:
            self._found = features_of(self._socket, self._ownership.flags)
        return self._found

    def _ensure(self) -> NodeState:
        as_owned = self._ownership.take()
        now = read_back.generation(self._socket)  # first, so that a change during the reading is not missed
        static = read_back.read_static(self._socket)
        seen = self._read_elements(static)
        elements = self._elements or Elements(state_of(seen) if static else None)
        intact = read_back.intact_sets(self._expected(), static, by_rules=True)
        pins = read_back.read_pins(self._socket, PINS.keys() & set(intact))
        valid, stale = sorted_out(pins, elements)
        self._certain = False
        if not as_owned or self._differences(elements, static, seen):
            self._made = elements.made()
            self._socket.batch(self._replacement(self._made, elements, valid))
            # If anybody else's change came between, the next verify sees another number and reads the table.
            now += 1
        else:
            self._made = made_among(static.chains)
        self._elements, self._generation, self._certain = elements, now, True
        self._settle(stale)
        return elements.state

    def _read_elements(self, static: read_back.Static) -> set[Element]:
        """The elements of those sets that are as we make them; none of a set that is missing or changed."""
        intact = read_back.intact_sets(self._expected(), static)
        return set(read_back.read_elements(self._socket, intact))

    def _differences(self, elements: Elements, static: read_back.Static, seen: set[Element]) -> list[str]:
        if not static:
            return [f"table {TABLE} is missing"]
        expected = self._expected(elements.made() | made_among(static.chains))
        found = read_back.differences(expected, static)
        wanted = {*elements, *constant_elements()}
        found += [f"{name} lacks elements" for name in sorted({each.set for each in wanted - seen})]
        found += [
            f"{name} has elements that are not ours" for name in sorted({each.set for each in seen - wanted})
        ]
        return found

    def _expected(self, made: frozenset[Made] = frozenset()) -> read_back.Static:
        return _expected(made, self._features())

    def _apply(self, change: CaptureChange) -> None:
        elements = self._elements
        if elements is None:
            raise RuntimeError("apply before ensure")
        gone, new = elements.difference(change)
        made = chains_of(new) - self._made
        added = packing.add_elements(new, elements.comments(change))
        chains = chains_made(made, self._made, as_target=self._features().as_target)
        self._commit([*encode.chains(chains), *packing.delete_elements(gone), *added])
        elements.apply(change)
        self._made |= made
        self._settle(pin_changes(gone, new))

    def _settle(self, changes: PinChanges) -> None:
        """Have pins end that hold no more, and others when they should now.

        Done after the change, from when on rules pin nobody to a pod that has gone: in one transaction with
        it, a pin that is over between the reading and the deleting would take the whole change down. If it
        cannot be done, the captures have changed all the same.
        """
        for _ in range(_SETTLE_ATTEMPTS if changes else 0):
            with contextlib.suppress(RefusedError, OSError):  # one was over meanwhile
                pins = read_back.read_pins(self._socket, {name for name, _ in changes})
                gone, new = retimed(pins, changes)
                self._commit([*packing.delete_pins(gone), *packing.add_pins(new)])
                return

    def _replacement(
        self, made: frozenset[Made], elements: Elements, pins: Iterable[ClientPin]
    ) -> list[Message]:
        """Create, delete and create again: deleting a table that is not there would be an error."""
        features = self._features()
        rules = ruleset(made, quick=features.quick, as_target=features.as_target)
        return [
            encode.table(),
            encode.delete_table(),
            *encode.creation(rules, self._ownership.flags),
            *packing.add_elements(elements, elements.comments()),
            *packing.add_pins(pins),
        ]

    def _commit(self, messages: list[Message]) -> None:
        try:
            self._socket.batch(messages)
        except OSError:  # it may have been applied all the same
            self._certain = False
            raise
        if messages and read_back.generation(self._socket) == self._generation + 1:
            self._generation += 1  # nobody else's change came between


def _queues(made: Iterable[Made]) -> frozenset[Made]:
    return frozenset(one for one in made if isinstance(one, Queue))


@functools.lru_cache(maxsize=4)
def _expected(made: frozenset[Made], found: Features) -> read_back.Static:
    rules = ruleset(made, quick=found.quick, as_target=found.as_target)
    return read_back.created_by(encode.creation(rules))


@contextlib.contextmanager
def _explained(attempt: str) -> Iterator[None]:
    """Turn what the kernel answers into a NetfilterError that says what was tried and what helps."""
    try:
        yield
    except (RefusedError, OSError) as error:
        raise _with_remedy(attempt, error) from error


def _with_remedy(attempt: str, error: RefusedError | OSError) -> NetfilterError:
    if isinstance(error, RefusedError):
        number = error.refusal.errno
    elif isinstance(error, TimeoutError):
        number = errno.ETIMEDOUT
    else:
        number = error.errno or 0
    remedy = _REMEDIES.get(number)
    return NetfilterError(f"{attempt}: {error}" + (f" ({remedy})" if remedy else ""))
