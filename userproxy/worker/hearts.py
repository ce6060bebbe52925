"""What workers say to the kernel by: the control side makes the sockets, as their marks take CAP_NET_ADMIN.

All have a heart. Those that serve a Service which asks for its clients' addresses can vouch for these, too.
"""

from __future__ import annotations

import contextlib
import socket
import weakref
from typing import TYPE_CHECKING

import structlog

from userproxy.model import messages
from userproxy.model.heartbeat import LEAVE_PORT
from userproxy.model.settings import SourceAddress
from userproxy.model.vouching import VOUCH_MARK
from userproxy.worker.heart import open_socket, send
from userproxy.worker.privileges import PrivilegesError, opening_for, user_of
from userproxy.worker.questions import fullness_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from userproxy.model.state import Serve
    from userproxy.worker.handle import WorkerHandle

log = structlog.get_logger("userproxy.workers")


class Hearts:
    """Has workers beat, and speaks for those that cannot. Lives as long as the worker pool.

    Args:
        handles: the workers that serve, by their places; it changes as they do.
    """

    def __init__(self, handles: Mapping[int, WorkerHandle]) -> None:
        self._handles = handles
        self._sockets: dict[int, socket.socket] = {}
        self._vouching: weakref.WeakKeyDictionary[WorkerHandle, int] = weakref.WeakKeyDictionary()
        self._begun = False
        self._error = ""

    @property
    def beating(self) -> frozenset[int]:
        """The workers that the kernel should hear, by their places."""
        return frozenset(self._handles) if self._begun else frozenset()

    def begin(self) -> None:
        """Have all workers beat from now on: they accept the clients of all that is captured."""
        if not self._begun:
            self._begun = True
            for index in self._handles:
                self.give(index)

    def take_over(self, earlier: Collection[WorkerHandle]) -> None:
        """Have all workers beat in the place of earlier ones that did: they serve the same."""
        serving = [handle for handle in earlier if handle.holds]
        if serving and all(handle.beats for handle in serving):
            self.begin()

    def give(self, index: int) -> None:
        """Have a worker beat that has taken its place, as the others do."""
        handle, sock = self._handles.get(index), self._socket(index) if self._begun else None
        if handle is not None and sock is not None:
            handle.tell(messages.Beat(), [sock.fileno()])

    def vouch(self, handle: WorkerHandle, serves: Iterable[Serve]) -> None:
        """Have a worker vouch for clients, if one of these asks for it, and the worker cannot yet.

        The kernel knows it by its user: one that has none of its own does not vouch.
        """
        asked = any(serve.settings.source_address is SourceAddress.CLIENT for serve in serves)
        if not asked or handle in self._vouching:
            return
        user = user_of(handle.pid)
        others = {other for each, other in self._vouching.items() if each.is_alive}
        self._vouching[handle] = user
        if not user or user in others:
            log.warning("a worker without a user of its own: pods see the node's address", pid=handle.pid)
            return
        with contextlib.ExitStack() as opened:
            sockets = [opened.enter_context(each) for each in _vouchers(user)]
            handle.tell(messages.Vouch(), [each.fileno() for each in sockets])

    def silence(self, index: int) -> None:
        """Say in the name of a worker that is dead, or about to go, that it accepts nobody."""
        if index in self._sockets:
            send(self._sockets[index], LEAVE_PORT)

    async def fullness_of(self, index: int, seconds: float) -> str | None:
        """Why a worker has clients go elsewhere, as it says itself.

        Empty if it does not; None if it does not answer in time.
        """
        handle = self._handles.get(index)
        return "" if handle is None else await fullness_of(handle, seconds)

    def end(self, index: int) -> None:
        """End a worker at once; another one takes its place."""
        if index in self._handles:
            self._handles[index].kill()

    def close(self) -> None:
        """Close the sockets here; workers have theirs."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _socket(self, index: int) -> socket.socket | None:
        if index not in self._sockets:
            try:
                self._sockets[index] = open_socket(index)
            except OSError as error:
                if not self._error:
                    self._error = str(error)
                    log.error("workers have no heartbeat: clients go to the pods", error=self._error)  # noqa: TRY400
                return None
        return self._sockets[index]


def _vouchers(user: int) -> list[socket.socket]:
    """A socket of this user for each family that there is; none without the privileges that it takes."""
    opened = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, PrivilegesError), opening_for(user):
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, VOUCH_MARK)
            except OSError:
                sock.close()
                raise
            opened.append(sock)
    return opened
