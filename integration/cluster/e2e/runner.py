"""Runs tests against the proxy that a rig's nodes have at the moment, several at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import msgspec

from integration.cluster.e2e.outcome import Outcome, read
from integration.cluster.e2e.selection import AREA
from integration.kubernetes.processes import in_namespace

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from integration.cluster.rig.rig import Rig

_POLL_SECONDS = 0.1


class Results:
    """A directory with a folder for each test, which has its log and its outcome."""

    def __init__(self, directory: Path) -> None:
        """`directory` is made when the first test is run."""
        self._directory = directory

    def folder(self, test: str) -> Path:
        """Of a readable name, and for each test another."""
        words = re.sub(r"[^A-Za-z0-9]+", "-", test.removeprefix(AREA))
        return self._directory / f"{words[:100]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"

    def keep(self, outcome: Outcome) -> None:
        """Write it down."""
        (self.folder(outcome.test) / "outcome.json").write_bytes(msgspec.json.encode(outcome) + b"\n")

    def all(self) -> dict[str, Outcome]:
        """Every outcome that is written down, by test."""
        found = [
            msgspec.json.decode(path.read_bytes(), type=Outcome)
            for path in self._directory.glob("*/outcome.json")
        ]
        return {outcome.test: outcome for outcome in found}


class Runner:
    """Runs e2e.test, once for each test."""

    def __init__(self, rig: Rig, binaries: Path, results: Results, timeout: float) -> None:
        """`timeout`: seconds for one test, after which it has failed."""
        self._rig = rig
        self._binaries = binaries
        self._results = results
        self._timeout = timeout

    def run(self, tests: Sequence[str], jobs: int) -> Generator[Outcome]:
        """Run tests, so many at a time; each outcome as it comes. Closing it ends those under way."""
        waiting = list(tests)
        running: list[_Run] = []
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(self._start(waiting.pop(0)))
                time.sleep(_POLL_SECONDS)
                for run in [each for each in running if each.over(self._timeout)]:
                    running.remove(run)
                    outcome = run.outcome()
                    self._results.keep(outcome)
                    yield outcome
        finally:
            for run in running:
                run.kill()

    def _start(self, test: str) -> _Run:
        folder = self._results.folder(test)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kubectl = self._binaries / "kubectl"
        command = [
            str(self._binaries / "e2e.test"),
            "--provider=skeleton",
            f"--kubeconfig={self._rig.api.admin_kubeconfig}",
            f"--kubectl-path={kubectl if kubectl.exists() else shutil.which('kubectl')}",
            f"--host={self._rig.api.url}",
            "--minStartupPods=0",
            "--disable-log-dump",
            "--dump-logs-on-failure=false",
            "--ginkgo.no-color",
            "--ginkgo.v",
            f"--ginkgo.focus={_literally(test)} *$",  # some names end with a space
        ]
        # What e2e.test and kubectl leave in /tmp and in ~/.kube goes with the cluster.
        home = self._rig.directory / "e2e"
        home.mkdir(exist_ok=True)
        here = ["env", f"HOME={home}", f"TMPDIR={home}", *command]
        return _Run(test, folder / "log", in_namespace(self._rig.netns, here))


class _Run:
    """One run of one test."""

    def __init__(self, test: str, log: Path, command: Sequence[str]) -> None:
        self._test = test
        self._log = log
        self._began = time.monotonic()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "prlimit", f"--nofile={most}", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                start_new_session=True,
            )

    def over(self, timeout: float) -> bool:
        """Whether it has ended; it is made to after `timeout` seconds."""
        if self._process.poll() is None and time.monotonic() - self._began > timeout:
            self.kill()
        return self._process.poll() is not None

    def outcome(self) -> Outcome:
        """What came of it, once it is over."""
        seconds = round(time.monotonic() - self._began)
        self.kill()  # what it left: kubectl, say
        return read(self._test, self._process.returncode, seconds, self._log.read_text(errors="replace"))

    def kill(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _literally(test: str) -> str:
    """A name as a regular expression of Go, which knows fewer escapes than Python writes."""
    return re.sub(r"[][()+*?.^$|{}\\]", r"\\\g<0>", test)
