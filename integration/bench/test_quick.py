"""`userproxy bench` from its first lab to its report, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from userproxy.lab import network
from userproxy.lab.deployment import BASE_DIRECTORY
from userproxy.lab.network import NETNS_DIRECTORY, LabError

if TYPE_CHECKING:
    from collections.abc import Generator

USERPROXY = str(Path(sys.executable).with_name("userproxy"))
PATHS = ("direct", "redirect-to-host", "haproxy")


@pytest.fixture
def name() -> Generator[str]:
    """What the names of this test's labs begin with; afterwards the machine is as it was."""
    try:
        network.preflight(["wrk", "iperf3", "nginx", "nsd", "dnsperf", "nft", "haproxy"])
    except LabError as error:
        pytest.skip(str(error))
    before = network.fingerprint()
    own = f"itb{os.getpid()}"
    yield own
    assert left_of(own) == []
    assert network.fingerprint() == before


def left_of(name: str) -> list[Path]:
    """The namespaces and directories of labs whose names begin so."""
    return [file for place in (NETNS_DIRECTORY, BASE_DIRECTORY) for file in place.glob(f"{name}*")]


def command(name: str, output: Path, *more: str) -> list[str]:
    return [USERPROXY, "bench", "--quick", "--name", name, "--output", str(output), *more]


def test_a_quick_run_ends_with_a_report(name: str, tmp_path: Path) -> None:
    output = tmp_path / "report"
    chosen = ("--paths", ",".join(PATHS), "--workloads", "r64,t1,dns,udp", "--base", "direct")
    done = subprocess.run(
        command(name, output, *chosen), capture_output=True, text=True, check=False, timeout=180
    )

    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    assert [path["name"] for path in report["paths"]] == list(PATHS)
    why_not = {(each["path"], each["what"], each["reason"]) for each in report["missing"]}
    assert why_not == {("haproxy", what, "it relays no UDP") for what in ("DNS queries", "datagrams")}
    measured = {(sample["path"], sample["metric"]) for sample in report["samples"]}
    assert {(path, metric) for path in PATHS for metric in ("requests_64", "throughput_1")} <= measured
    for path in ("direct", "redirect-to-host"):
        assert {(path, "queries"), (path, "datagrams")} <= measured
    for metric in ("cpu_user", "query_user", "datagrams_cpu"):
        assert ("redirect-to-host", metric) in measured
    assert ("direct", "cpu_user") not in measured
    assert all(sample["value"] > 0 for sample in report["samples"])
    assert "HAProxy" in (output / "report.md").read_text()
    assert "HAProxy" in done.stdout


def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"KUBE_PROXY_USERSPACE": "/no/such/program"}
    chosen = ("--paths", "direct,kube-proxy-userspace", "--workloads", "r1")
    done = subprocess.run(
        command(name, tmp_path, *chosen),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )

    assert done.returncode == 0, done.stderr
    assert "KUBE_PROXY_USERSPACE=/no/such/program is no program" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", [0.0, 4.0, 7.0])
def test_an_interrupt_leaves_nothing_behind(name: str, tmp_path: Path, seconds: float) -> None:
    output = tmp_path / "report"
    with subprocess.Popen(
        command(name, output, "--paths", "direct,haproxy", "--seconds", "20"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "starting" in process.stderr.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 128 + signal.SIGINT
    assert "interrupted (SIGINT); nothing is left of the benchmark" in errors
    assert not output.exists()
