"""File descriptors that are kept for when there are no others.

Who runs out of them sends new clients elsewhere at once. Those who are in the listen queues by then cannot be
sent anywhere: they get the spare ones.
"""

from __future__ import annotations

import os


class Spare:
    """So many open files that nobody uses.

    Args:
        count: how many there are when all is well.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._fds: list[int] = []
        self.refill()

    def release(self) -> bool:
        """Close them; whether there were any."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)
        return bool(fds)

    def refill(self) -> bool:
        """Open those that are missing; whether all are there."""
        try:
            while len(self._fds) < self._count:
                self._fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        return True
