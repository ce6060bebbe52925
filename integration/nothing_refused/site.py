"""A Service under load, whoever dies below it, and what is said of it afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from typing import TYPE_CHECKING

from integration.load.load import Load, server
from integration.load.report import timeline
from integration.restart.load import workers
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import end_all, running_in
from userproxy.lab.topology import SERVER_SERVICE
from userproxy.model.address import Address
from userproxy.model.heartbeat import TIMEOUT_SECONDS

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from integration.load.report import Report
    from userproxy.lab.deployment import Lab
    from userproxy.lab.processes import Process

HEARTBEAT_SECONDS = TIMEOUT_SECONDS + 0.1
"""After so long without a beat the kernel sends new connections to the pods; the last beat may be late."""

GAP_SECONDS = float(os.environ.get("USERPROXY_GAP_SECONDS", "3"))
"""How long nobody serves between an end and a start, or everything stands still. Issues speak of 20."""

LONG = 204
"""Long connections of a load."""

_NAME = "storm"
_HOST = "host1"
_NUMBERS = itertools.count()


class Site:
    """A Service on a lab's host1. No scenario before has used its address, its host ports and pods' ports.

    Otherwise conntrack, and sockets in TIME_WAIT, would remember the clients of others.

    Attributes:
        lab: the lab.
        frontend: by TCP.
        questions: where it is asked by UDP.
    """

    def __init__(self, lab: Lab) -> None:
        number = next(_NUMBERS)
        self.lab = lab
        self.frontend = Address(f"10.3.242.{number + 1}", 80)
        self.questions = Address(self.frontend.ip, 53)
        self._pod_port = 7000 + number
        self._host_ports = f"{12000 + 10 * number}-{12009 + 10 * number}"
        self._servers = contextlib.ExitStack()

    def __enter__(self) -> Self:
        ports = [Port(80, self._pod_port, "tcp"), Port(53, self._pod_port, "dns", "UDP")]
        pods = [objects.endpoint(pod.ip) for pod in SERVER_SERVICE.backends]
        service = objects.service(_NAME, [self.frontend.ip], ports)
        manifest = objects.manifest([service, objects.endpoint_slice(f"{_NAME}-1", _NAME, ports, pods)])
        self.lab.write_manifest(f"{_NAME}.yaml", manifest)
        with contextlib.ExitStack() as servers:
            for pod in SERVER_SERVICE.backends:
                servers.enter_context(server(self._enter(pod.name), pod.name, self._pod_port))
            self._servers = servers.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._servers.close()
        self.end()
        self.lab.userproxy(_HOST, "cleanup")
        for path in [*self.lab.state(_HOST).glob("*.json"), *self.lab.logs.glob(f"{_HOST}-daemon.log")]:
            path.unlink()

    def start_daemon(self, *options: str, under: Sequence[str] = ()) -> Process:
        """Start a daemon that serves it."""
        return self.lab.start_daemon(_HOST, "--port-range", self._host_ports, *options, under=under)

    @property
    def daemon(self) -> Process:
        """The last one that was started."""
        return self.lab.daemon(_HOST)

    @property
    def processes(self) -> list[int]:
        """All of userproxy on the host."""
        return running_in([self.lab.namespace(_HOST)])

    @property
    def workers(self) -> list[int]:
        """Of these, the workers."""
        return workers(self.lab)

    @property
    def connections(self) -> list[str]:
        """The ids of those that are relayed."""
        return [row["id"] for row in self.lab.rows(_HOST, "connections")]

    def load(self, member: str = "client", **options: object) -> Load:
        """500 new connections a second and LONG long ones, and 50 questions by UDP."""
        return Load(self._enter(member), self.frontend, udp=self.questions, questions=50, **options)

    def end(self) -> None:
        """Kill all of userproxy on the host."""
        if running := self.lab.processes.get(f"{_HOST}-daemon"):
            running.kill()  # first, lest it replaces its workers
        end_all([self.lab.namespace(_HOST)], grace=0.0)

    def _enter(self, member: str) -> list[str]:
        return ["ip", "netns", "exec", self.lab.namespace(member)]


def send(pids: Iterable[int], signum: signal.Signals) -> float:
    """Send a signal to each; returns when, by CLOCK_MONOTONIC."""
    now = time.monotonic()
    for pid in pids:
        os.kill(pid, signum)
    return now


def told(what: str, report: Report, event: float, grace: float = 0.0) -> str:
    """The figures of a scenario.

    Args:
        what: happened.
        report: of the load meanwhile.
        event: when, by CLOCK_MONOTONIC.
        grace: how long after that nobody need answer.
    """
    due = event + grace
    lines = [
        f"{what}: {report}",
        f"  new ones, before {grace:g} s: {timeline(report.failed(0, due), event)}",
        f"  new ones, from then on: {timeline(report.failed(due), event)}",
        f"  long ones cut: {timeline(report.cuts, event)}",
    ]
    if report.failed(0, what="question"):
        lines += [
            f"  questions, before {grace:g} s: {timeline(report.failed(0, due, 'question'), event)}",
            f"  questions, from then on: {timeline(report.failed(due, what='question'), event)}",
        ]
    return "\n".join(lines)
