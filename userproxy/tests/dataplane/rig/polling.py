"""A poller, driven by hand."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.net.poller import Poller

# How long a test waits for the kernel before it fails.
PATIENCE = 20.0


class Polling:
    """Serves what is ready when a test says so.

    Attributes:
        poller: of the sockets.
    """

    poller: Poller

    def until(self, happened: Callable[[], object]) -> None:
        """Serve what is ready until something has happened."""
        while not happened():
            assert select.select([self.poller._epoll], [], [], PATIENCE)[0], "nothing more happens"
            self.poller.dispatch()

    def settle(self) -> None:
        """Serve what is ready until nothing is."""
        for _ in range(1000):
            if not select.select([self.poller._epoll], [], [], 0)[0]:
                return
            self.poller.dispatch()
        raise AssertionError("it spins")
