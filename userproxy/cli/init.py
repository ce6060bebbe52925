"""The first process of a container: starts the daemon, and starts it anew at once when it dies or hangs.

All that runs in a container ends with its first process (pid_namespaces(7)). If that were the daemon, workers
would not outlive it; below this process they do, and the next daemon takes over from them. Nothing can happen
to a process that does next to nothing.

It listens to the daemon as systemd would (sd_notify(3)), so that it knows one that has served from one that
never did, and one that hangs. A liveness probe could not tell the kubelet to end the daemon alone.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_DONTWAIT,
    SCM_CREDENTIALS,
    SO_PASSCRED,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOL_SOCKET,
    socket,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


WATCHDOG_SECONDS = 60
"""A daemon that has served, and is silent for so long, hangs."""

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_FORWARDED = _ENDING | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_WAITED = _FORWARDED | {signal.SIGCHLD}

# Before the daemon is started again that has just died again. One that lived longer has a clean slate.
_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
_LONG_SECONDS = 60.0

_LOOK_SECONDS = 5.0
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


class _Ear:
    """What the daemon says of itself.

    Attributes:
        address: for NOTIFY_SOCKET.
        has_served: whether it has ever said that it was ready.
    """

    def __init__(self) -> None:
        self.address = f"@userproxy-init-{os.urandom(8).hex()}"
        self.has_served = False
        self._heard = 0.0  # 0: it owes us nothing
        self._socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        self._socket.bind(f"\0{self.address[1:]}")
        self._socket.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)

    def forget(self) -> None:
        """There is another one now."""
        for _ in self._messages():
            pass
        self._heard = 0.0

    def is_silent(self) -> bool:
        """Whether it should have been heard of."""
        for message in self._messages():
            if "READY=1" in message:
                self.has_served = True
            waits = {"READY=1", "WATCHDOG=1"} & set(message)
            self._heard = time.monotonic() if waits else 0.0
        return bool(self._heard) and time.monotonic() - self._heard > WATCHDOG_SECONDS

    def _messages(self) -> Iterator[list[str]]:
        """The lines of each. Anybody in the network namespace may send some."""
        while True:
            try:
                message, control, _, _ = self._socket.recvmsg(1024, CMSG_SPACE(_UCRED.size), MSG_DONTWAIT)
            except OSError:
                return
            if [_UCRED.unpack(data)[1] for _, kind, data in control if kind == SCM_CREDENTIALS] == [
                os.geteuid()
            ]:
                yield message.decode(errors="replace").splitlines()


def supervise(command: list[str]) -> int:
    """Run the daemon until it ends by itself, or after a signal that was to end it.

    Signals go to the daemon. It is started anew where it is killed by one that did not come from here, hangs,
    or fails after it has served: as long as this process lives, its workers do.

    Args:
        command: the program, with its path, and its arguments.

    Returns:
        Its exit code; where a signal has killed it, 128 and that signal.
    """
    # Blocked signals wait for sigwait(3), also those that the kernel keeps from a first process otherwise.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    ear = _Ear()
    told = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}
    environment = {**os.environ, **told}
    environment.pop("WATCHDOG_PID", None)
    deaths = 0
    while True:
        began = time.monotonic()
        ear.forget()
        # A process group of its own: Ctrl-C would come from the terminal, and once more from here.
        child = os.posix_spawn(command[0], command, environment, setpgroup=0, setsigmask=before)
        code, ending = _attend(child, ear)
        if ending or code == 0 or (code > 0 and not ear.has_served):
            return code if code >= 0 else 128 - code
        if time.monotonic() - began > _LONG_SECONDS:
            deaths = 0
        pause = _PAUSES[min(deaths, len(_PAUSES) - 1)]
        deaths += 1
        how = (
            f"has failed with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        )
        _say(f"the daemon {how}; it is started anew{f' in {pause:g} s' if pause else ''}")
        told_to_end = _pause(pause)
        if told_to_end:
            return 128 + told_to_end


def _attend(child: int, ear: _Ear) -> tuple[int, bool]:
    """Until the child has ended; returns its exit code, or minus the signal, and whether it was to end."""
    ending = False
    while True:
        came = signal.sigtimedwait(_WAITED, _LOOK_SECONDS)
        is_silent = ear.is_silent()  # also noted: what it has said before it ended
        if came is not None and came.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return os.waitstatus_to_exitcode(status), ending
        elif came is not None:
            ending |= came.si_signo in _ENDING
            os.kill(child, came.si_signo)  # it is there, or waits to be reaped
        elif is_silent and not ending:
            _say(f"the daemon was silent for {WATCHDOG_SECONDS} s: it is killed")
            os.kill(child, signal.SIGKILL)


def _reap(child: int) -> int | None:
    """Collect who has ended, orphaned workers included; returns the status of the child, if it has."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                found = ended[1]
    except ChildProcessError:  # nobody is left
        pass
    return found


def _pause(seconds: float) -> int:
    """Wait; returns the signal that was to end the program meanwhile, or 0."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        came = signal.sigtimedwait(_WAITED, left)
        if came is None:
            continue
        if came.si_signo == signal.SIGCHLD:
            _reap(0)
        elif came.si_signo in _ENDING:
            return came.si_signo
    return 0


def _say(line: str) -> None:
    print(f"userproxy: {line}", file=sys.stderr, flush=True)  # noqa: T201 - logging would cost memory
