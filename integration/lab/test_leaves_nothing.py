"""However a lab ends, the machine is afterwards as it was before."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from userproxy.lab import network, processes
from userproxy.lab.deployment import BASE_DIRECTORY, Lab
from userproxy.lab.evidence import Machine
from userproxy.lab.network import LabError
from userproxy.lab.topology import REFERENCE_WITH_DNS

if TYPE_CHECKING:
    from collections.abc import Generator

SERVERS = 4
"""Two web servers and two name servers, each of which may be several processes."""

USERPROXY = str(Path(sys.executable).with_name("userproxy"))


@pytest.fixture
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """A lab that is down; each test brings it up in its own way."""
    made = Lab(f"{lab_name}-end", daemons=False, deployment=REFERENCE_WITH_DNS)
    yield made
    made.down()


def userproxy_lab(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [USERPROXY, "lab", *argv[:1], "--name", lab.name, *argv[1:]]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def assert_nothing_is_left(machine: Machine) -> None:
    assert {kind: left for kind, left in machine.left_overs().items() if left} == {}


def test_down_leaves_no_namespace_process_or_file(lab: Lab) -> None:
    machine = Machine(lab)
    lab.up()
    assert machine.note_processes() >= SERVERS
    assert network.existing(lab.namespaces) == list(lab.namespaces)
    lab.down()
    assert_nothing_is_left(machine)


def test_an_error_in_the_middle_takes_the_lab_down(lab: Lab) -> None:
    machine = Machine(lab)

    def fail_within() -> None:
        with lab:
            machine.note_processes()
            lab.exec("client", "sh", "-c", "exit 3")

    with pytest.raises(LabError, match="exit code 3"):
        fail_within()
    assert_nothing_is_left(machine)


def test_up_leaves_it_running_and_down_ends_it_also_twice(lab: Lab) -> None:
    machine = Machine(lab)
    assert userproxy_lab(lab, "up", "--no-daemons").returncode == 0
    assert machine.note_processes() >= SERVERS
    said = userproxy_lab(lab, "exec", "client", "--", "curl", "-sS", "http://10.0.2.2:8080/")
    assert said.stdout.startswith("server2 answers 10.0.1.3:")
    assert userproxy_lab(lab, "exec", "host1", "--", "sh", "-c", "exit 7").returncode == 7
    again = userproxy_lab(lab, "up")
    assert (again.returncode, f"lab {lab.name} is up already" in again.stderr) == (1, True)
    assert userproxy_lab(lab, "down").returncode == 0
    assert userproxy_lab(lab, "down").returncode == 0
    assert_nothing_is_left(machine)


def test_the_machine_s_own_resolver_and_mounts_stay_as_they_are(lab: Lab) -> None:
    before = Path("/etc/resolv.conf").read_text()
    with lab:
        assert str(lab.directory) in lab.exec("client", "cat", "/proc/self/mountinfo").stdout
        assert str(lab.directory) not in Path("/proc/self/mountinfo").read_text()
        assert Path("/etc/resolv.conf").read_text() == before
    assert Path("/etc/resolv.conf").read_text() == before


def test_a_program_that_cannot_have_the_pod_s_own_etc_does_not_run(lab: Lab) -> None:
    """Else it would ask the machine's own resolver for the names of the lab."""
    with lab:
        shutil.rmtree(lab.directory / "etc")
        asked = lab.exec("client", "echo", "it ran", check=False)
        assert (asked.returncode != 0, asked.stdout) == (True, "")


def test_a_process_that_ignores_sigterm_is_ended_all_the_same(lab: Lab) -> None:
    machine = Machine(lab)
    with lab:
        stubborn = lab.start(
            "stubborn", "client", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"
        )
        processes.wait_until("the trap is set", lambda: "ready" in stubborn.output(), 5.0)
        machine.note_processes()
    assert_nothing_is_left(machine)


def test_up_after_a_half_made_lab_cleans_it_first(lab: Lab) -> None:
    machine = Machine(lab)
    subprocess.run(["ip", "netns", "add", lab.namespace("host2")], check=True)
    (network.NETNS_DIRECTORY / lab.namespace("client")).touch()  # interrupted before the kernel's part
    (BASE_DIRECTORY / lab.name).mkdir(parents=True)
    with lab:
        assert lab.exec("client", "curl", "-sS", "http://10.0.2.2:8080/").stdout.startswith("server2")
    assert_nothing_is_left(machine)


@pytest.mark.parametrize("moment", [0.05, 0.3, 0.8, 2.5])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_the_middle_of_run_leaves_the_machine_as_it_was(
    lab: Lab, signum: signal.Signals, moment: float
) -> None:
    machine = Machine(lab)
    run = start_story(lab)
    time.sleep(moment)
    machine.note_processes()
    run.send_signal(signum)
    time.sleep(0.05)
    run.send_signal(signal.SIGINT)  # the impatient second one
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 128 + signum, errors
    assert "Traceback" not in errors
    assert_nothing_is_left(machine)


@pytest.mark.parametrize("so_far", range(1, SERVERS + 1))
def test_what_a_killed_run_leaves_is_cleaned_by_down(lab: Lab, so_far: int) -> None:
    machine = Machine(lab)
    run = start_story(lab)
    processes.wait_until("something runs in it", lambda: machine.note_processes() >= so_far, 10.0)
    run.kill()
    run.communicate(timeout=30)
    processes.wait_until("its processes died with it", lambda: not processes.running_in(lab.namespaces), 5.0)
    assert userproxy_lab(lab, "down").returncode == 0
    assert_nothing_is_left(machine)


def start_story(lab: Lab) -> subprocess.Popen[str]:
    """`userproxy lab run`, in the middle of making its lab or telling."""
    command = [USERPROXY, "lab", "run", "--name", lab.name]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    processes.wait_until("it has begun", lambda: lab.directory.exists() or run.poll() is not None, 10.0)
    return run
