"""The lists of tests: which are selected, which pass, and that a list never shrinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster.e2e.exceptions import reason_of, unexplained
from integration.cluster.e2e.outcome import Outcome, Result
from integration.cluster.e2e.passing import Passing
from integration.cluster.e2e.selection import names_in, select
from integration.cluster.e2e.table import general, page
from integration.cluster.rig.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path

SERVES = "[sig-network] Services should serve a basic endpoint from pods [Conformance]"
HOLDS = "[sig-network] Services should hold | affinity"


def passed(test: str) -> Outcome:
    return Outcome(test, Result.PASSED, 3)


def failed(test: str, reason: str = "it `did` not") -> Outcome:
    return Outcome(test, Result.FAILED, 30, reason)


def test_only_what_concerns_proxies_is_selected() -> None:
    listing = f"""\
    k8s.io/kubernetes/test/e2e/network/service.go:1: {SERVES}
    k8s.io/kubernetes/test/e2e/network/service.go:2: [sig-network] Services should work [Disruptive]
    k8s.io/kubernetes/test/e2e/network/ingress.go:3: [sig-network] Ingress API should support creating
    k8s.io/kubernetes/test/e2e/storage/x.go:4: [sig-storage] Volumes should serve [sig-network] Services
    """
    assert select(names_in(listing)) == [SERVES]


def test_a_list_grows_and_never_shrinks(tmp_path: Path) -> None:
    assert Passing(Proxy.REDIRECT_TO_HOST, tmp_path).grow([passed(SERVES), failed(HOLDS)]) == [SERVES]
    listed = Passing(Proxy.REDIRECT_TO_HOST, tmp_path)
    assert listed.broken([failed(SERVES), failed(HOLDS)]) == [failed(SERVES)]
    assert listed.grow([failed(SERVES), passed(HOLDS)]) == [HOLDS]
    assert (tmp_path / "redirect-to-host.txt").read_text() == f"{HOLDS}\n{SERVES}\n"
    assert Passing(Proxy.REDIRECT_TO_POD, tmp_path).tests == frozenset()


def test_a_listed_test_that_is_skipped_is_broken_too(tmp_path: Path) -> None:
    Passing(Proxy.REDIRECT_TO_POD, tmp_path).grow([passed(SERVES)])
    skipped = Outcome(SERVES, Result.SKIPPED, 1, "no test of this name was run")
    assert Passing(Proxy.REDIRECT_TO_POD, tmp_path).broken([skipped]) == [skipped]


@pytest.mark.parametrize("proxy", Proxy, ids=lambda each: each.value)
def test_no_exception_is_made_for_what_passes(proxy: Proxy) -> None:
    assert [test for test in Passing(proxy).tests if reason_of(proxy, test)] == []


def test_a_failure_without_a_reason_is_noticed() -> None:
    known = failed("[sig-network] Services should preserve source pod IP for traffic thru service cluster IP")
    assert unexplained(Proxy.REDIRECT_TO_HOST, [passed(SERVES), failed(HOLDS), known]) == [failed(HOLDS)]
    assert unexplained(Proxy.REDIRECT_TO_POD, [passed(SERVES), known]) == [known]


def test_the_page_has_every_test_and_every_reason() -> None:
    text = page(
        {
            Proxy.KUBE_PROXY: {SERVES: passed(SERVES), HOLDS: passed(HOLDS)},
            Proxy.REDIRECT_TO_HOST: {SERVES: passed(SERVES), HOLDS: failed(HOLDS)},
            Proxy.REDIRECT_TO_POD: {SERVES: passed(SERVES), HOLDS: failed(HOLDS)},
        },
        machine="a machine",
        version="1.2.3",
    )
    assert "| redirect-to-host | 1 | 1 | 0 |" in text
    assert "| Services should hold \\| affinity | pass | **fail** | **fail** |" in text
    assert (
        "**redirect-to-host**, 1 tests: nobody knows yet why.\n\n- Services should hold \\| affinity" in text
    )
    assert (
        "**Services should hold \\| affinity**\n\n- redirect-to-host, redirect-to-pod: `` it `did` not ``"
        in text
    )


def test_a_reason_reads_the_same_after_every_run() -> None:
    where = "10.100.0.3:31864, 10.3.241.9:80, 10.0.2.7, 203.0.113.250:80"
    assert (
        general(f"no answer on {where} (at: creating a in namespace b-1)")
        == "no answer on NODE-IP:NODE-PORT, CLUSTER-IP:80, POD-IP, 203.0.113.250:80 (at: creating a)"
    )
