"""The first process of a container: starts the daemon, and starts it anew at once when it dies abruptly.

All that runs in a container ends with its first process (pid_namespaces(7)). If that were the daemon, workers
would not outlive it; below this process they do, and the next daemon takes over from them. Nothing can happen
to a process that does next to nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_FORWARDED = _ENDING | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}

# Before the daemon is started again that has just died again. One that lived longer has a clean slate.
_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
_LONG_SECONDS = 60.0


def supervise(command: list[str]) -> int:
    """Run a program until it ends by itself, or after a signal that was to end it.

    Signals go to the program; where it is killed by one that did not come from here, it is started anew.

    Args:
        command: the program, with its path, and its arguments.

    Returns:
        Its exit code; where a signal has killed it, 128 and that signal.
    """
    # Blocked signals wait for sigwait(3), also those that the kernel keeps from a first process otherwise.
    waited = _FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    deaths = 0
    while True:
        began = time.monotonic()
        # A process group of its own: Ctrl-C would come from the terminal, and once more from here.
        child = os.posix_spawn(command[0], command, os.environ, setpgroup=0, setsigmask=before)
        code, ending = _attend(child, waited)
        if code >= 0 or ending:
            return code if code >= 0 else 128 - code
        if time.monotonic() - began > _LONG_SECONDS:
            deaths = 0
        pause = _PAUSES[min(deaths, len(_PAUSES) - 1)]
        deaths += 1
        killer = signal.Signals(-code).name
        _say(f"{killer} has killed the daemon; it is started anew{f' in {pause:g} s' if pause else ''}")
        told = _pause(pause, waited)
        if told:
            return 128 + told


def _attend(child: int, waited: frozenset[signal.Signals]) -> tuple[int, bool]:
    """Until the child has ended; returns its exit code, or minus the signal, and whether it was to end."""
    ending = False
    while True:
        came = signal.sigwait(waited)
        if came == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return os.waitstatus_to_exitcode(status), ending
        else:
            ending |= came in _ENDING
            os.kill(child, came)  # it is there, or waits to be reaped


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


def _pause(seconds: float, waited: frozenset[signal.Signals]) -> int:
    """Wait; returns the signal that was to end the program meanwhile, or 0."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        came = signal.sigtimedwait(waited, left)
        if came is None:
            continue
        if came.si_signo == signal.SIGCHLD:
            _reap(0)
        elif came.si_signo in _ENDING:
            return came.si_signo
    return 0


def _say(line: str) -> None:
    print(f"userproxy: {line}", file=sys.stderr, flush=True)  # noqa: T201 - logging would cost memory
