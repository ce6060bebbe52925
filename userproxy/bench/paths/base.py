"""What a path is to the rest of the benchmark."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from userproxy.bench import usage
from userproxy.bench.services import BULK, DNS, ECHO, HTTP

if TYPE_CHECKING:
    from userproxy.bench.services import Service
    from userproxy.bench.site import Site
    from userproxy.lab.processes import Process
    from userproxy.model.address import Address


class PathUnavailableError(Exception):
    """The path cannot be measured here; one line that says why."""


class Path(ABC):
    """One way from the client to the pods, in a lab of its own.

    Attributes:
        name: as on the command line.
        title: as in the report.
        note: what a reader of its figures should know.
        relays: whether a process of its own carries the bytes, and not the kernel alone.
        datagrams: whether it carries UDP.
        most_held: open connections that it can take at a time, where that is few.
        hears: whether its program hears what conntrack tells of connections.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    note: ClassVar[str] = ""
    relays: ClassVar[bool] = False
    datagrams: ClassVar[bool] = True
    most_held: ClassVar[int | None] = None
    hears: ClassVar[bool] = False

    def __init__(self, site: Site) -> None:
        self.site = site
        self._process: Process | None = None

    @property
    def http(self) -> Address:
        """Where the client finds the HTTP servers."""
        return HTTP.frontend

    @property
    def bulk(self) -> Address:
        """Where the client finds the iperf3 server."""
        return BULK.frontend

    @property
    def dns(self) -> Address:
        """Where the client finds the name servers."""
        return DNS.frontend

    @property
    def echo(self) -> Address:
        """Where the client finds the servers that answer each datagram by one."""
        return ECHO.frontend

    def version(self) -> str:
        """Of the program behind it.

        Raises:
            PathUnavailableError: that is not installed, or does not run here.
        """
        return ""

    @abstractmethod
    def start(self) -> None:
        """Make the path work.

        Raises:
            PathUnavailableError: it cannot.
            LabError: likewise.
        """

    def stop(self) -> None:
        """End its processes; rules may stay."""
        if self._process:
            self._process.stop()

    def fate(self) -> str:
        """How its process has ended, with what it said; empty while it runs, or if it has none."""
        if self._process is None or self._process.alive:
            return ""
        lines = self._process.output().strip().splitlines() or ["nothing"]
        said = next((line for line in lines if line.startswith("panic:")), lines[-1])
        return f"its process has ended with {self._process.exit_code}, and said: {said}"

    def processes(self) -> list[int]:
        """The pids of all its processes."""
        return usage.family(self._process.pid) if self._process and self._process.alive else []


class ScalablePath(Path):
    """A path of which it matters how many Services there are.

    Attributes:
        most_services: that it is tried with.
        why_no_more: the reason for that bound.
        every_kind: whether it knows more of a Service than its cluster IP.
    """

    most_services: ClassVar[int | None] = None
    why_no_more: ClassVar[str] = ""
    every_kind: ClassVar[bool] = True

    @abstractmethod
    def load(self, services: list[Service], patience: float) -> float:
        """Start afresh with `HTTP` and these Services beside it; return when all of them work.

        Args:
            services: beside `HTTP`.
            patience: how many seconds that may take.

        Returns:
            The seconds from the start of its program until then.

        Raises:
            PathUnavailableError: that took too long, or failed.
            LabError: likewise.
        """

    def prepare(self, service: Service) -> None:
        """Make what is there before the Service itself is, such as its pods; well before `add`."""

    @abstractmethod
    def add(self, service: Service) -> None:
        """Add a Service, as a user would; return at once, before it works."""

    @abstractmethod
    def remove(self, service: Service) -> None:
        """Take a Service away again."""


def first_line(*argv: str) -> str:
    """The first line that a program prints, on stdout or else stderr.

    Raises:
        PathUnavailableError: it does not run.
    """
    try:
        done = subprocess.run(  # noqa: S603 our own argv
            argv, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PathUnavailableError(f"{argv[0]} does not run: {error}") from None
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    if not lines:
        raise PathUnavailableError(f"`{' '.join(argv)}` prints nothing")
    return lines[0].strip()
