"""A load and its servers as a scenario holds them: begun, watched, and ended with a report.

Both are processes of their own in whatever namespace the given command enters; they end with ours, however
it ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from integration.load.report import Progress, Report
from userproxy.lab.network import LabError
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from userproxy.model.address import Address

PATIENCE_SECONDS = 15.0
_ROOT = Path(__file__).parents[2]
_LINE = msgspec.json.Decoder(Progress | Report)


@contextlib.contextmanager
def server(enter: Sequence[str], name: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """What answers a load, in TCP and UDP on a port of the namespace that the command enters."""
    with _started(enter, "integration.load.server", name, str(port)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", f"{name} does not serve on port {port}"
        yield process


class Load:
    """Connections to an address, from the namespace that the command enters, as long as the context lasts.

    Args:
        enter: such as `ip netns exec NAME`.
        address: of a Service in front of `server`s.
        options: of `integration.load.generator`, with an underscore for each dash.

    Attributes:
        now: how far it is.
    """

    def __init__(self, enter: Sequence[str], address: Address, **options: object) -> None:
        self.now = Progress(connections=0, questions=0, failed=0, held=0, replies=0)
        said = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._context = _started(enter, "integration.load.generator", str(address), *said)
        self._report: Report | None = None
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._process = self._context.__enter__()
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)
        self._reader.join(PATIENCE_SECONDS)

    @property
    def pid(self) -> int:
        """Of the generator."""
        return self._process.pid

    def settle(self, held: int = 204, connections: int = 500) -> None:
        """Wait until all long connections are there, and so many others went well.

        Raises:
            LabError: it does not come to that.
        """
        self.wait_for(f"{held} long connections", lambda now: now.held == held)
        self.go_on(connections)

    def go_on(self, connections: int = 500) -> None:
        """Wait until so many more connections went well.

        Raises:
            LabError: they do not.
        """
        due = self.now.connections + connections
        self.wait_for(f"{connections} more connections", lambda now: now.connections >= due)

    def wait_for(self, what: str, condition: Callable[[Progress], bool]) -> None:
        """Wait until it is so.

        Raises:
            LabError: it is not, in time.
        """

        def holds() -> bool:
            if self._process.poll() is not None:
                raise LabError(f"it has ended with {self._process.returncode}")
            return condition(self.now)

        try:
            wait_until(what, holds, PATIENCE_SECONDS)
        except LabError as error:
            raise LabError(f"the load: {error}; it has {self.now}") from None

    def finish(self) -> Report:
        """End it, in order, and say what became of it.

        Raises:
            AssertionError: it does not say.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(PATIENCE_SECONDS)
        assert self._report is not None, "the load has not said what became of it"
        return self._report

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = _LINE.decode(line)
            if isinstance(said, Progress):
                self.now = said
            else:
                self._report = said


@contextlib.contextmanager
def _started(enter: Sequence[str], module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*enter, sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
