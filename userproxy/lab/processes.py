"""What runs in a lab: started in a namespace, logged, and gone when the lab is.

A process is started through `ip netns exec`, which becomes it: its pid is that of the program. It
leads a session of its own, so that Ctrl-C reaches the lab alone, which then takes everything down in
order. Where the lab itself may be killed (`tied`), the kernel kills its processes too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from userproxy.lab.network import NETNS_DIRECTORY, LabError, existing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from types import FrameType

GRACE_SECONDS = 2.0
"""How long a process may take over SIGTERM when a lab is taken down, before SIGKILL."""

_POLL_SECONDS = 0.02
_TCP_LISTEN = "0A"  # in /proc/net/tcp
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked us to stop; `exit_code` is what a shell expects then (128 + signal)."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Process:
    """A running program of a lab.

    Attributes:
        name: in the lab, also of its log file.
        pid: of the program itself.
        log: the file with its stdout and stderr.
    """

    def __init__(self, name: str, popen: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.pid = popen.pid
        self.log = log
        self._popen = popen

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that ended it), or None while it runs."""
        return self._popen.poll()

    def output(self) -> str:
        """Everything that it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def last_line(self) -> str:
        """The last line that it has printed, or that there is none."""
        lines = self.output().strip().splitlines()
        return lines[-1] if lines else f"nothing in {self.log}"

    def listens(self, port: int) -> bool:
        """Whether anybody in its namespace listens on that TCP port, on any address.

        Raises:
            LabError: the process has ended; with the last line that it printed.
        """
        if not self.alive:
            raise LabError(f"{self.name} ended with {self.exit_code}: {self.last_line()}")
        # The kernel shows these tables as the process's own namespace has them.
        tables = (Path(f"/proc/{self.pid}/net/{name}") for name in ("tcp", "tcp6"))
        rows = [row for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
        sockets = [row.split() for row in rows]
        return f"{port:04X}" in {row[1].rpartition(":")[2] for row in sockets if row[3] == _TCP_LISTEN}

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        self._popen.send_signal(signum)

    def wait(self, timeout: float) -> int:
        """Wait for its end; returns its exit code.

        Raises:
            LabError: it still runs after `timeout` seconds.
        """
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(
                f"{self.name} (pid {self.pid}) still runs after {timeout:g} s; see {self.log}"
            ) from None

    def stop(self, timeout: float = 10.0) -> int:
        """Ask it to end (SIGTERM), and make it (SIGKILL) after `timeout` seconds; returns its exit code."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(LabError):
            return self.wait(timeout)
        return self.kill()

    def kill(self) -> int:
        """End it at once (SIGKILL), as a crash would; returns its exit code."""
        self.send(signal.SIGKILL)
        return self.wait(5.0)


def start(name: str, argv: list[str], *, log: Path, environment: Mapping[str, str], tied: bool) -> Process:
    """Start a program, its stdout and stderr appended to `log`.

    Args:
        name: how messages call it.
        argv: the program and its arguments, complete with `ip netns exec`.
        log: a file in a directory that exists.
        environment: the whole of it.
        tied: the kernel kills it when the thread that starts it ends.

    Raises:
        LabError: it could not be started.
    """
    whole = [*tied_to(os.getpid()), *argv] if tied else argv
    try:
        with log.open("a") as output, undisturbed():
            popen = subprocess.Popen(  # noqa: S603 our own argv
                whole,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                text=True,
            )
    except OSError as error:
        raise LabError(f"{name} cannot be started: {error}") from None
    return Process(name, popen, log)


def run(
    argv: list[str], environment: Mapping[str, str], stdin: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; an interrupt meanwhile ends it, and never leaves it behind.

    `subprocess.run` forgets a child that it has just started when a signal handler raises before it
    has heard that the child's program runs.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds, and is ended.
    """
    with contextlib.ExitStack() as stack:
        with undisturbed():
            popen = subprocess.Popen(  # noqa: S603 our own argv
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                text=True,
            )
            stack.enter_context(popen)
            stack.callback(popen.kill)  # does nothing to one that has ended
        stdout, stderr = popen.communicate(stdin, timeout)
    return subprocess.CompletedProcess(argv, popen.returncode, stdout, stderr)


def tied_to(parent: int) -> list[str]:
    """What runs a program that the kernel kills when `parent` ends, and does not even begin it after that.

    PR_SET_PDEATHSIG survives the exec of `ip` and of the program, since neither is set-uid. It comes too late
    where the parent has ended before: only then is the process somebody else's child.
    """
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(parent)]


def running_in(namespaces: Iterable[str]) -> list[int]:
    """The processes whose network namespace is one of these, but for our own.

    The namespace is asked, not a pid file: it also knows what a crashed lab left, and never names a
    pid that belongs to somebody else by now.
    """
    wanted = {_identity(NETNS_DIRECTORY / name) for name in existing(namespaces)} - {(0, 0)}
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and _identity(Path(f"/proc/{pid}/ns/net")) in wanted]


def end_all(namespaces: Iterable[str], grace: float = GRACE_SECONDS) -> None:
    """End every process in these namespaces: SIGTERM, after `grace` seconds SIGKILL.

    Raises:
        LabError: one outlives SIGKILL.
    """
    names = list(namespaces)
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        _signal_and_wait(names, signum, patience)
    left = running_in(names)
    if left:
        raise LabError(f"processes {left} in namespaces {', '.join(names)} do not end; see `ip netns pids`")


def _signal_and_wait(names: list[str], signum: signal.Signals, patience: float) -> None:
    with contextlib.ExitStack() as stack:
        handles: list[int] = []
        for pid in running_in(names):
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                signal.pidfd_send_signal(handle, signum)
                handles.append(handle)
        deadline = time.monotonic() + patience
        for handle in handles:
            # A pidfd is readable once its process has ended, reaped or not.
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks after boot: with its pid, its identity. None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def wait_until(what: str, condition: Callable[[], bool], timeout: float) -> None:
    """Poll until it is so.

    Raises:
        LabError: it is not, after `timeout` seconds; the message says `what`.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not so after {timeout:g} s")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def interruptible() -> Generator[None]:
    """Within it, the first SIGINT, SIGTERM or SIGHUP raises `Interrupted`; from then on they are ignored.

    So what is being taken down because of the first is not disturbed by an impatient second, and the
    process that catches `Interrupted` is expected to end.
    """
    ours = os.getpid()

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != ours:  # a fork of us has nothing to take down
            os._exit(128 + signum)
        _handle(dict.fromkeys(_INTERRUPTS, signal.SIG_IGN))
        raise Interrupted(signum)

    before = _handle(dict.fromkeys(_INTERRUPTS, interrupt))
    try:
        yield
    except Interrupted:
        before = {}
        raise
    finally:
        _handle(before)


@contextlib.contextmanager
def undisturbed() -> Generator[None]:
    """Within it, SIGINT, SIGTERM and SIGHUP wait: the first one that comes counts once it is over."""
    waiting: list[int] = []

    def defer(signum: int, _frame: FrameType | None) -> None:
        waiting.append(signum)

    before = _handle(dict.fromkeys(_INTERRUPTS, defer))
    try:
        yield
    finally:
        _handle(before)
        if waiting:
            signal.raise_signal(signal.Signals(waiting[0]))


def _handle(handlers: dict[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Set signal handlers, and return those before; other threads than the main one may set none."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}


def _identity(namespace: Path) -> tuple[int, int]:
    """Of the namespace that a file stands for; (0, 0), which none has, for a process that just ended."""
    try:
        found = namespace.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
