"""Requests and connections a second, latency, and the proxy's CPU time: wrk against the pods' nginx."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.bench import usage
from userproxy.bench.site import find_program
from userproxy.bench.workloads.base import MeasurementError, Outcome, RepeatedWorkload, Settings

if TYPE_CHECKING:
    from userproxy.bench.paths.base import Path

CONNECTIONS = 64
"""With which latency, CPU time and new connections a second are measured."""

TOLERATED_FAILURES = 0.01
"""The share of requests that may fail before a measurement is not believed."""

MARK = "userproxy-bench "
SCRIPT = f"""\
-- wrk's own summary rounds, and stops at p99.
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '{MARK}{{"requests": %d, "microseconds": %d, "failures": %d, "refusals": %d,' ..
        ' "p50": %.1f, "p99": %.1f, "p999": %.1f}}\\n',
        summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout, e.status,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


class WrkResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What wrk has counted.

    Attributes:
        requests: that were answered.
        microseconds: that it took.
        failures: connections that could not be made, were cut, or timed out.
        refusals: answers with a status of 400 or more.
        p50: latency in microseconds, as are `p99` and `p999`.
    """

    requests: int
    microseconds: int
    failures: int
    refusals: int
    p50: float
    p99: float
    p999: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.microseconds * 1e6


def parse(output: str) -> WrkResult:
    """What `SCRIPT` made wrk print.

    Raises:
        MeasurementError: that is not there, or says that the measurement was none.
    """
    _, _, rest = output.rpartition(MARK)
    try:
        result = msgspec.json.decode(rest.partition("\n")[0], type=WrkResult)
    except msgspec.DecodeError as error:
        last = (output.strip().splitlines() or ["nothing"])[-1]
        raise MeasurementError(f"wrk's output is not understood ({error}); it ends: {last[:200]}") from None
    if result.requests <= 0 or result.microseconds <= 0:
        raise MeasurementError(f"no request was answered ({result.failures} failures)")
    if result.refusals:
        raise MeasurementError(f"{result.refusals} answers had an error's status")
    if result.failures > TOLERATED_FAILURES * result.requests:
        raise MeasurementError(f"{result.failures} failures beside {result.requests} answers")
    return result


def run(path: Path, connections: int, seconds: int, *headers: str) -> WrkResult:
    """Run wrk with one thread over a path.

    Raises:
        MeasurementError: its outcome cannot be used.
        LabError: it failed.
    """
    script = path.site.write("report.lua", SCRIPT)
    options = [option for header in headers for option in ("-H", header)]
    argv = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "--latency", "-s", script)
    url = f"http://{path.http}/"
    return parse(path.site.ask(find_program("wrk"), *argv, *options, url, timeout=seconds + 30))


class Requests(RepeatedWorkload):
    """Requests a second over connections that stay."""

    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.name = f"r{connections}"
        self.title = f"requests over {connections} connection{'s' if connections > 1 else ''}"

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:  # noqa: ARG002 - one step
        """The rate."""
        if settings.warmup:
            run(path, self.connections, settings.warmup)
        result = run(path, self.connections, settings.seconds)
        return [Outcome(f"requests_{self.connections}", result.rate)]


class Latency(Requests):
    """The same, with the latency, and what CPU time the proxy takes for a request."""

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:  # noqa: ARG002 - one step
        """The rate, the percentiles and the CPU time."""
        if settings.warmup:
            run(path, self.connections, settings.warmup)
        before = usage.cpu_time(path.processes())
        result = run(path, self.connections, settings.seconds)
        used = usage.cpu_time(path.processes()) - before
        found = [
            Outcome(f"requests_{self.connections}", result.rate),
            Outcome("latency_p50", result.p50 / 1000),
            Outcome("latency_p99", result.p99 / 1000),
            Outcome("latency_p999", result.p999 / 1000),
        ]
        if path.relays:
            if used.user + used.system <= 0:
                raise MeasurementError("the proxy's processes used no CPU time: it is not they that relay")
            found.append(Outcome("cpu_user", used.user / result.requests * 1e6))
            found.append(Outcome("cpu_system", used.system / result.requests * 1e6))
        return found


class NewConnections(RepeatedWorkload):
    """One request a connection."""

    name = "new"
    title = "new connections"

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:  # noqa: ARG002 - one step
        """The rate."""
        header = "Connection: close"
        if settings.warmup:
            run(path, CONNECTIONS, settings.warmup, header)
            path.site.flush()
        result = run(path, CONNECTIONS, settings.seconds, header)
        return [Outcome("new_connections", result.rate)]
