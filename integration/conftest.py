"""What the scenarios share: a lab of their own, and the rule that in CI nothing may be skipped.

Scenarios need root and a kernel with network namespaces and nftables; elsewhere they are skipped, with
the reason. With CI=true a skip is a failure: a suite that did not run has shown nothing.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn

import pytest

from userproxy.lab import network
from userproxy.lab.deployment import Lab
from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

_IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
_skipped: dict[str, str] = {}


def pytest_configure() -> None:
    # So that fixtures take their namespaces down also when the run is cancelled.
    signal.signal(signal.SIGTERM, _interrupt)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _note_skip(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _IN_CI and _skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _IN_CI and _skipped:
        terminalreporter.section("skipped, which in CI is a failure", red=True)
        for where, reason in _skipped.items():
            terminalreporter.line(f"{where}: {reason}")


@pytest.fixture(scope="session")
def lab_name() -> str:
    """A name that no other lab on this machine has: that of this process."""
    return f"it{os.getpid()}"


@pytest.fixture(scope="session")
def able() -> None:
    """That this machine can carry a lab; else the test is skipped, with what is missing."""
    try:
        network.preflight(["curl", "nsd"])
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1, for all scenarios that leave it as it was.

    A folder whose scenarios want another one has a fixture of this name.
    """
    with Lab(lab_name, daemons=False) as made:
        made.start_daemon("host1")
        yield made


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    _skipped[report.nodeid] = reason.removeprefix("Skipped: ")
