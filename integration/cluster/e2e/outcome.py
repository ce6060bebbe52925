"""How a test ended, and what its log says of that. Pure."""

from __future__ import annotations

import enum
import re
import signal

import msgspec

_REASON_LENGTH = 250
_STEP_LENGTH = 150


class Result(enum.StrEnum):
    """The three ends of a test."""

    PASSED = "pass"
    FAILED = "fail"
    SKIPPED = "skip"


class Outcome(msgspec.Struct, frozen=True):
    """A test that was run.

    Attributes:
        test: its full name, `[sig-network] Services should ...`.
        result: skipped is the test's own verdict: the cluster lacks something.
        seconds: that it took.
        reason: why it did not pass, in its own words, and at which step; empty for one that did.
    """

    test: str
    result: Result
    seconds: int
    reason: str = ""


def read(test: str, status: int, seconds: int, log: str) -> Outcome:
    """What a run's exit status (negative: the signal that ended it) and log come to."""
    if status == 0 and re.search(r"^Ran 1 of ", log, re.MULTILINE):
        return Outcome(test, Result.PASSED, seconds)
    if status == 0:
        return Outcome(test, Result.SKIPPED, seconds, _said(log, "SKIPPED") or "no test of this name was run")
    reason = _said(log, "FAILED") or _ended(status, seconds)
    step = _last_step(log)
    return Outcome(test, Result.FAILED, seconds, f"{reason} (at: {step})" if step else reason)


def _said(log: str, verdict: str) -> str:
    """The first line that ginkgo prints with a verdict, but for `[FAILED] in [It] - FILE`."""
    found = re.search(rf"^ *\[{verdict}\] (?!in \[)(.*)", log, re.MULTILINE)
    if not found:
        return ""
    plain = re.sub(r"\S*/kubectl( --\S+)+", "kubectl", found[1].strip())  # less where the cluster is
    return plain[:_REASON_LENGTH]


def _last_step(log: str) -> str:
    """The last `STEP: WHAT @ WHEN` before the failure."""
    steps = re.findall(r"^ *STEP: (.*?)(?: @ .*)?$", log.partition("[FAILED]")[0], re.MULTILINE)
    return str(steps[-1])[:_STEP_LENGTH] if steps else ""


def _ended(status: int, seconds: int) -> str:
    if status == -signal.SIGKILL:
        return f"not done after {seconds} s"
    return f"e2e.test ended with {status}"
