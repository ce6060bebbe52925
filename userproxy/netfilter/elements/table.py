"""All elements of our table, and what a change makes of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from userproxy.model.state import NodeState
from userproxy.netfilter.elements.access import (
    ACCESS_SETS,
    cluster_ip_element,
    cluster_ips_of,
    guard_element,
    guards_of,
    perimeter_elements,
    perimeter_of,
    pod_element,
    pods_of,
    queues_of,
    range_elements,
    ranges_of,
    relay_elements,
    steer_elements,
    workers_of,
)
from userproxy.netfilter.elements.captures import captures_of, comments_of, elements_of
from userproxy.netfilter.ruleset.made import made_among

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from userproxy.model.actions import CaptureChange
    from userproxy.netfilter.elements.element import Element
    from userproxy.netfilter.ruleset.made import Made


class Elements:
    """All elements of our table, counted: several captures may need the same one (a hairpin).

    One object lives as long as the layer's view of the kernel; it changes only by what the kernel has
    accepted.

    Args:
        state: to begin with. What is no matter of the kernel is left out.
    """

    def __init__(self, state: NodeState | None = None) -> None:
        begin = state or NodeState()
        self.captures = dict(begin.captures)
        self.guards = set(begin.guards)
        self.cluster_ips = set(begin.cluster_ips)
        self.ranges = dict(begin.ranges)
        self.pods = set(begin.pods)
        self.perimeter = begin.perimeter
        self.workers = begin.workers
        self.queues = begin.queues
        self._names = {key: str(pool.service_port) for key, pool in begin.pools.items()}
        self._uses: Counter[Element] = Counter()
        for frontend, target in self.captures.items():
            self._uses.update(elements_of(frontend, target))
        for frontend, networks in self.ranges.items():
            self._uses.update(range_elements(frontend, networks))
        self._uses.update(map(guard_element, self.guards))
        self._uses.update(map(cluster_ip_element, self.cluster_ips))
        self._uses.update(map(pod_element, self.pods))
        self._uses.update(perimeter_elements(self.perimeter))
        self._uses.update(relay_elements(self.workers))
        self._uses.update(steer_elements(self.queues))

    def __iter__(self) -> Iterator[Element]:
        return iter(self._uses)

    @property
    def state(self) -> NodeState:
        """What they amount to."""
        return NodeState(
            captures=dict(self.captures),
            guards=dict.fromkeys(self.guards),
            cluster_ips=dict.fromkeys(self.cluster_ips),
            ranges=dict(self.ranges),
            pods=dict.fromkeys(self.pods),
            perimeter=self.perimeter,
            workers=self.workers,
            queues=self.queues,
        )

    def comments(self, change: CaptureChange | None = None) -> dict[tuple[str, bytes], str]:
        """By set and key, what those who list the rules read beside an element: whose frontend it is.

        Args:
            change: of what it puts; None: of all.
        """
        if change is None:
            return comments_of(self._names)
        return comments_of({key: self._names.get(key, "") for key in change.put} | change.names)

    def made(self) -> frozenset[Made]:
        """The chains that they lead to."""
        return chains_of(self)

    def difference(self, change: CaptureChange) -> tuple[list[Element], list[Element]]:
        """The elements to delete and those to add; an element whose data changes is in both."""
        delta = self._delta(change)
        gone = [element for element, count in delta.items() if count < 0 and not self._uses[element] + count]
        new = [element for element, count in delta.items() if count > 0 and not self._uses[element]]
        return gone, new

    def apply(self, change: CaptureChange) -> None:
        """Take over what the kernel has accepted."""
        for element, count in self._delta(change).items():
            if count:
                self._uses[element] += count
                if not self._uses[element]:
                    del self._uses[element]
        self._names.update(change.names)
        for frontend in change.remove:
            self._names.pop(frontend, None)
            self.captures.pop(frontend, None)
        self.captures.update(change.put)
        self.guards -= change.unguard
        self.guards |= change.guard
        self.cluster_ips -= change.disclaim
        self.cluster_ips |= change.claim
        self.pods -= change.unwatch
        self.pods |= change.watch
        for frontend, networks in change.ranges.items():
            self.ranges.pop(frontend, None)
            if networks:
                self.ranges[frontend] = networks
        self.perimeter = change.perimeter or self.perimeter
        self.workers = self.workers if change.workers is None else change.workers
        self.queues = self.queues if change.queues is None else change.queues

    def _delta(self, change: CaptureChange) -> Counter[Element]:
        """How many more, or fewer, uses of each element there would be."""
        delta: Counter[Element] = Counter()
        for frontend in (*change.put, *change.remove):
            delta.subtract(elements_of(frontend, self.captures.get(frontend)))
        for frontend, target in change.put.items():
            delta.update(elements_of(frontend, target))
        for frontend, networks in change.ranges.items():
            delta.subtract(range_elements(frontend, self.ranges.get(frontend, ())))
            delta.update(range_elements(frontend, networks))
        delta.subtract(map(guard_element, change.unguard & self.guards))
        delta.update(map(guard_element, change.guard - self.guards))
        delta.subtract(map(cluster_ip_element, change.disclaim & self.cluster_ips))
        delta.update(map(cluster_ip_element, change.claim - self.cluster_ips))
        delta.subtract(map(pod_element, change.unwatch & self.pods))
        delta.update(map(pod_element, change.watch - self.pods))
        if change.perimeter is not None:
            delta.subtract(perimeter_elements(self.perimeter))
            delta.update(perimeter_elements(change.perimeter))
        if change.workers is not None:
            delta.subtract(relay_elements(self.workers))
            delta.update(relay_elements(change.workers))
        if change.queues is not None:
            delta.subtract(steer_elements(self.queues))
            delta.update(steer_elements(change.queues))
        return delta


def state_of(elements: Collection[Element]) -> NodeState:
    """What a table's elements amount to; what makes no sense is left out."""
    others = [element for element in elements if element.set in ACCESS_SETS]  # few, on most nodes
    return NodeState(
        captures=captures_of(elements),
        guards=dict.fromkeys(guards_of(others)),
        cluster_ips=dict.fromkeys(cluster_ips_of(others)),
        ranges=ranges_of(others),
        pods=dict.fromkeys(pods_of(others)),
        perimeter=perimeter_of(others),
        workers=workers_of(others),
        queues=queues_of(others),
    )


def chains_of(elements: Iterable[Element]) -> frozenset[Made]:
    """The chains that the elements lead to."""
    return made_among({element.chain for element in elements if element.chain})
