"""Kubernetes' own tests against userproxy: of those that are listed as passing, the ones in focus.txt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.cluster.e2e.passing import Passing
from integration.cluster.e2e.runner import Results, Runner
from integration.cluster.rig.proxy import Proxy

if TYPE_CHECKING:
    from integration.cluster.rig.rig import Rig

FOCUS = Path(__file__).with_name("focus.txt")
JOBS = 5  # they mostly wait
TEST_SECONDS = 150.0


@pytest.mark.timeout(900)  # with the cluster's start
@pytest.mark.parametrize(
    "proxy", [Proxy.REDIRECT_TO_HOST, Proxy.REDIRECT_TO_POD], ids=lambda each: each.value
)
def test_what_passes_goes_on_to_pass(rig: Rig, binaries: Path, proxy: Proxy, tmp_path: Path) -> None:
    passing = Passing(proxy)
    tests = [test for test in FOCUS.read_text().splitlines() if test in passing.tests]
    assert tests
    results = Results(tmp_path)
    runner = Runner(rig, binaries, results, TEST_SECONDS)

    rig.use(proxy)
    outcomes = list(runner.run(tests, JOBS))
    # What a busy machine made fail has a second look, alone.
    doubtful = passing.broken(outcomes)
    again = list(runner.run([each.test for each in doubtful], 1))

    for each in outcomes:
        print(f"{each.result:4} {each.seconds:4} s  {each.test}  {each.reason}")
    broken = [f"{each.test}: {each.reason}; {results.folder(each.test)}" for each in passing.broken(again)]
    assert broken == []
