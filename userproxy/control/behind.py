"""Who is behind a listener: the pods of its Service, but for those that the workers have found down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.control.substitutes import Substitutes
from userproxy.model.state import NodeState, ToListener

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from userproxy.model.address import Address
    from userproxy.model.service import PoolName
    from userproxy.model.state import Frontend, Target


class Behind:
    """Leaves pods out where they have been found down. Lives as long as the daemon."""

    def __init__(self) -> None:
        self._substitutes = Substitutes()

    def restrict(self, wanted: NodeState, down: Mapping[PoolName, Collection[Address]]) -> NodeState:
        """The wanted state without the pods that are down; where all are, all stay.

        Args:
            wanted: by what the source says.
            down: by pool.
        """
        captures = self._substitutes.put(wanted.captures, dict(_restricted(wanted, down)))
        return wanted if captures is wanted.captures else msgspec.structs.replace(wanted, captures=captures)


def _restricted(
    wanted: NodeState, down: Mapping[PoolName, Collection[Address]]
) -> Iterator[tuple[Frontend, Target]]:
    for name, out in down.items():
        for key in wanted.frontends.get(name, ()):
            target = wanted.captures.get(key)
            if isinstance(target, ToListener) and target.behind is not None:
                pods = tuple(pod for pod in target.behind.pods if pod not in out)
                if pods and pods != target.behind.pods:
                    behind = msgspec.structs.replace(target.behind, pods=pods)
                    yield key, msgspec.structs.replace(target, behind=behind)
