"""DNS queries a second by UDP, and the proxy's CPU time: dnsperf against the pods' name servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from userproxy.bench import usage
from userproxy.bench.services import DNS_PORT, QUESTION
from userproxy.bench.site import find_program
from userproxy.bench.workloads.base import MeasurementError, Outcome, RepeatedWorkload, Settings

if TYPE_CHECKING:
    from userproxy.bench.paths.base import Path

CLIENTS = 64
"""Sockets, each with one query at a time: what a crowd of stub resolvers does."""

TOLERATED_LOSSES = 0.001
"""The share of queries that may stay without an answer before a measurement is not believed."""


class DnsperfResult(msgspec.Struct, frozen=True):
    """What dnsperf has counted.

    Attributes:
        answers: that came.
        lost: queries without an answer.
        rate: answers a second.
    """

    answers: int
    lost: int
    rate: float


def parse(output: str) -> DnsperfResult:
    """What dnsperf prints in the end.

    Raises:
        MeasurementError: that is not there, or says that the measurement was none.
    """
    answers = re.search(r"Queries completed: +(\d+)", output)
    lost = re.search(r"Queries lost: +(\d+)", output)
    rate = re.search(r"Queries per second: +([\d.]+)", output)
    codes = re.search(r"Response codes: +(.*)", output)
    if not (answers and lost and rate):
        last = (output.strip().splitlines() or ["nothing"])[-1]
        raise MeasurementError(f"dnsperf's output is not understood; it ends: {last[:200]}")
    result = DnsperfResult(int(answers[1]), int(lost[1]), float(rate[1]))
    if not result.answers:
        raise MeasurementError(f"no query was answered ({result.lost} were lost)")
    if result.lost > TOLERATED_LOSSES * result.answers:
        raise MeasurementError(f"{result.lost} queries were lost beside {result.answers} answers")
    if not codes or "," in codes[1] or not codes[1].startswith("NOERROR"):
        raise MeasurementError(f"not every answer was one: {codes[1] if codes else 'no response codes'}")
    return result


def run(path: Path, seconds: int) -> DnsperfResult:
    """Run dnsperf with one thread over a path.

    Raises:
        MeasurementError: its outcome cannot be used.
        LabError: it failed.
    """
    questions = path.site.write("questions", f"{QUESTION} A\n")
    where = ("-s", path.dns.ip, "-p", str(DNS_PORT), "-d", questions)
    how = ("-T", "1", "-c", str(CLIENTS), "-q", str(CLIENTS), "-l", str(seconds))
    return parse(path.site.ask(find_program("dnsperf"), *where, *how, timeout=seconds + 30))


class Queries(RepeatedWorkload):
    """Queries of many clients, each of which asks anew as soon as it has its answer."""

    name = "dns"
    title = "DNS queries"

    def why_not(self, path: Path, step: int) -> str | None:  # noqa: ARG002 - one step
        """Not over what carries no UDP."""
        return None if path.datagrams else "it relays no UDP"

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:  # noqa: ARG002 - one step
        """The rate and the CPU time."""
        if settings.warmup:
            run(path, settings.warmup)
        before = usage.cpu_time(path.processes())
        result = run(path, settings.seconds)
        used = usage.cpu_time(path.processes()) - before
        found = [Outcome("queries", result.rate)]
        if path.relays:
            found.append(Outcome("query_user", used.user / result.answers * 1e6))
            found.append(Outcome("query_system", used.system / result.answers * 1e6))
        return found
