"""`scripts/conformance`: the whole of Kubernetes' tests against each proxy, the lists and the page."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.e2e.exceptions import unexplained
from integration.cluster.e2e.outcome import Outcome, Result
from integration.cluster.e2e.passing import Passing
from integration.cluster.e2e.runner import Results, Runner
from integration.cluster.e2e.selection import AREA, GROUPS, known, select
from integration.cluster.e2e.table import page
from integration.cluster.rig.proxy import Proxy
from integration.cluster.rig.rig import Rig
from integration.kubernetes.processes import ClusterError
from userproxy.lab.processes import Interrupted, interruptible

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
GO_MOD = Path(__file__).parents[1] / "kubernetes" / "apiserver" / "go.mod"
_DESCRIPTION = """\
Brings up a cluster of three nodes, gives them each PROXY in turn, and runs Kubernetes' own tests. It fails
when a test fails that integration/cluster/passing lists, or for which integration/cluster/e2e/exceptions.py
has no reason. It adds to the lists what passes now, and writes docs/conformance.md once there are results
for all proxies.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    options = _options(argv)
    binaries = Path(os.environ["KUBEBUILDER_ASSETS"])
    directory = (options.results or Path(tempfile.mkdtemp(prefix="userproxy-conformance-"))).resolve()
    tests = select(known(binaries), options.groups)
    print(f"{len(tests)} tests; logs and results: {directory}", flush=True)
    campaigns = [Campaign(proxy, directory, tests) for proxy in options.proxies]
    if any(each.due(failed_too=options.failed_again) for each in campaigns):
        with interruptible(), Rig(binaries) as rig:
            for each in campaigns:
                runner = Runner(rig, binaries, each.results, options.seconds)
                each.run(rig, runner, options.jobs, failed_too=options.failed_again)
    broken = [line for each in campaigns for line in each.conclude()]
    if options.groups == GROUPS:
        broken += [line for proxy in options.proxies for line in not_there(proxy, tests)]
        write_page(directory, tests)
    for line in broken:
        print(f"should pass, but: {line}")
    return 1 if broken else 0


class Campaign:
    """The tests against one proxy, of which an earlier run may have done some.

    Attributes:
        results: of this proxy.
    """

    def __init__(self, proxy: Proxy, directory: Path, tests: Sequence[str]) -> None:
        self._proxy = proxy
        self._directory = directory / proxy.value
        self._tests = tests
        self._passing = Passing(proxy)
        self.results = Results(self._directory)

    def due(self, *, failed_too: bool) -> list[str]:
        """What has no result yet, or one that must not stand: a failure of a listed test, or any."""
        before = self.results.all()
        again = {each.test for each in self._broken()}
        if failed_too:
            again |= {test for test, outcome in before.items() if outcome.result is Result.FAILED}
        return [test for test in self._tests if test not in before or test in again]

    def run(self, rig: Rig, runner: Runner, jobs: int, *, failed_too: bool) -> None:
        """Run what is due."""
        due = self.due(failed_too=failed_too)
        if not due:
            return
        rig.use(self._proxy)
        try:
            self._run(runner, due, jobs)
            # A busy machine can make a good test fail: those have a second look, one by one.
            self._run(runner, [each.test for each in self._broken()], 1)
        finally:
            for node in rig.nodes:  # the proxies' logs stand beside the tests' own
                log = node.directory / f"{self._proxy.value}.log"
                shutil.copy(log, self._directory / f"{node.address.name}.log")

    def conclude(self) -> list[str]:
        """Let the list grow; returns what is wrong, a line for each test that should not have failed."""
        outcomes = self._outcomes()
        broken = {each.test: each for each in (*self._broken(), *unexplained(self._proxy, outcomes))}
        new = self._passing.grow(outcomes)
        counts = ", ".join(f"{sum(each.result is kind for each in outcomes)} {kind}" for kind in Result)
        print(f"{self._proxy.value}: {counts}; {len(new)} new", flush=True)
        return [f"{self._proxy.value}: {each.test}: {each.reason}" for each in broken.values()]

    def _run(self, runner: Runner, tests: Sequence[str], jobs: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for each in runner.run(tests, jobs):
            print(f"{self._proxy.value} {each.result:4} {each.seconds:4} s  {_short(each)}", flush=True)

    def _broken(self) -> list[Outcome]:
        return self._passing.broken(self._outcomes())

    def _outcomes(self) -> list[Outcome]:
        found = self.results.all()
        return [found[test] for test in self._tests if test in found]


def not_there(proxy: Proxy, tests: Sequence[str]) -> list[str]:
    """A line for each test on a list that Kubernetes has no more, or that is selected no more."""
    return [f"{proxy.value}: {test}: is not there" for test in sorted(Passing(proxy).tests - set(tests))]


def write_page(directory: Path, tests: Sequence[str]) -> None:
    """Write docs/conformance.md, if there are results of every proxy for every test."""
    columns = {proxy: Results(directory / proxy.value).all() for proxy in Proxy}
    if any(set(tests) - set(column) for column in columns.values()):
        print(f"{PAGE.name} stays: it wants results for {', '.join(proxy.value for proxy in Proxy)}")
        return
    wanted = {proxy: {test: column[test] for test in tests} for proxy, column in columns.items()}
    kernel = platform.release().partition("-")[0]
    machine = f"{time.strftime('%Y-%m-%d')}, with Linux {kernel} on {os.cpu_count()} processors"
    found = re.search(r"\tk8s\.io/kubernetes v(\S+)", GO_MOD.read_text())
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(wanted, machine, found[1] if found else ""))
    print(f"wrote {PAGE}")


def _short(outcome: Outcome) -> str:
    name = outcome.test.removeprefix(AREA)
    return f"{name}: {outcome.reason}" if outcome.reason else name


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/conformance", description=_DESCRIPTION)
    add = parser.add_argument
    names = ", ".join(proxy.value for proxy in Proxy)
    add("proxies", nargs="*", type=Proxy, metavar="PROXY", default=list(Proxy), help=f"{names}; default: all")
    add(
        "--groups",
        nargs="+",
        default=GROUPS,
        metavar="REGEX",
        help=f"by the beginning of a name after {AREA}",
    )
    add("--jobs", type=int, default=5, metavar="N", help="tests at a time; they mostly wait")
    add("--seconds", type=float, default=900, metavar="S", help="for one test")
    add(
        "--results", type=Path, metavar="DIR", help="goes on from the results there; default: a new directory"
    )
    add("--failed-again", action="store_true", help="with --results: also run again what failed")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Interrupted as interrupt:
        sys.exit(interrupt.exit_code)
    except ClusterError as error:
        sys.exit(f"conformance: {error}")
