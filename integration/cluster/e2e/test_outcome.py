"""What a log of e2e.test comes to."""

from __future__ import annotations

from integration.cluster.e2e.outcome import Result, read

TEST = "[sig-network] Services should hold"
PASSED = """\
  STEP: Creating a kubernetes client @ 11/27/26 02:39:29.312
Ran 1 of 7144 Specs in 10.735 seconds
SUCCESS! -- 1 Passed | 0 Failed | 0 Pending | 7143 Skipped
"""
FAILED = """\
  STEP: Creating a kubernetes client @ 11/27/26 02:39:29.312
  STEP: creating service affinity in namespace services-5179 @ 11/27/26 02:39:29.412
  [FAILED] in [It] - k8s.io/kubernetes@v1.34.4/test/e2e/network/service.go:249 @ 11/27/26 02:41:37.338
  STEP: Destroying namespace "services-5179" for this suite. @ 11/27/26 02:41:37.394
• [FAILED] [128.092 seconds]
[sig-network] Services [It] should hold [sig-network, Conformance]

  [FAILED] Affinity should hold but didn't.
  In [It] at: k8s.io/kubernetes@v1.34.4/test/e2e/network/service.go:249 @ 11/27/26 02:41:37.338
Ran 1 of 7144 Specs in 129.938 seconds
"""
SKIPPED = """\
  STEP: Creating a kubernetes client @ 11/27/26 02:39:29.312
  [SKIPPED] in [BeforeEach] - k8s.io/kubernetes@v1.34.4/test/e2e/skipper/skipper.go:65 @ 11/27/26 02:41:37.338
S [SKIPPED] [0.108 seconds]
  [SKIPPED] Requires at least 4 nodes (not 3)
Ran 0 of 7144 Specs in 0.938 seconds
"""


def test_a_pass() -> None:
    assert read(TEST, 0, 12, PASSED).result is Result.PASSED


def test_a_failure_is_told_in_its_words_with_the_step_before_it() -> None:
    outcome = read(TEST, 1, 130, FAILED)
    assert outcome.result is Result.FAILED
    assert (
        outcome.reason
        == "Affinity should hold but didn't. (at: creating service affinity in namespace services-5179)"
    )


def test_where_the_cluster_was_is_no_part_of_the_reason() -> None:
    command = "/usr/bin/kubectl --server=https://10.1.1.1 --kubeconfig=/tmp/x --namespace=a exec pod"
    outcome = read(
        TEST, 1, 130, FAILED.replace("Affinity should hold but didn't.", f"error running {command}")
    )
    assert outcome.reason.startswith("error running kubectl exec pod (at: ")


def test_a_skip_has_its_reason() -> None:
    outcome = read(TEST, 0, 1, SKIPPED)
    assert (outcome.result, outcome.reason) == (Result.SKIPPED, "Requires at least 4 nodes (not 3)")


def test_a_name_that_no_test_has_is_no_pass() -> None:
    outcome = read(TEST, 0, 1, "Ran 0 of 7144 Specs in 0.1 seconds\n")
    assert (outcome.result, outcome.reason) == (Result.SKIPPED, "no test of this name was run")


def test_a_run_that_was_ended_says_how_long_it_took() -> None:
    outcome = read(TEST, -9, 900, PASSED.partition("Ran")[0])
    assert (outcome.result, outcome.reason) == (
        Result.FAILED,
        "not done after 900 s (at: Creating a kubernetes client)",
    )
