"""However a cluster ends, the machine is afterwards as it was before."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.cluster.rig import cgroups
from integration.cluster.rig.images import Names
from userproxy.lab.network import fingerprint
from userproxy.lab.processes import started_at, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
PLACES = ("/run/containerd", "/run/xtables.lock", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods")
"""Where containerd, kubelet and CNI plugins write, whatever they are told."""
RUN = """
import sys
from pathlib import Path
from integration.cluster.rig.addresses import NODES
from integration.cluster.rig.proxy import Proxy
from integration.cluster.rig.rig import Rig
from userproxy.lab.processes import Interrupted, interruptible

rig = Rig(Path(sys.argv[1]), nodes=NODES[:1])
print(rig.name, flush=True)
try:
    with interruptible(), rig:
        rig.use(Proxy.REDIRECT_TO_HOST)
        rig.api.kubectl("run", "busy", f"--image={sys.argv[2]}", "--image-pull-policy=Never")
        rig.api.kubectl("wait", "pod/busy", "--for=condition=Ready", "--timeout=50s")
        print(rig.directory, flush=True)
        sys.stdin.read()
except Interrupted as interrupt:
    sys.exit(interrupt.exit_code)
"""


class Run:
    """A process of its own with a cluster of one node, and the machine around it.

    Attributes:
        process: that process.
        name: the cluster's; in the names of its cgroups.
    """

    def __init__(self, binaries: Path) -> None:
        self._before = (fingerprint(), existing_places())
        image = Names(binaries).of("e2e-test-images/agnhost")[0]
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(binaries), image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
        )
        self.name = self.said()
        self._seen: dict[int, int | None] = {}

    def said(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def note_processes(self, *marks: str) -> int:
        """Remember what runs in the cluster, by command line or cgroup; returns how much that is."""
        self._seen |= {pid: started_at(pid) for pid in processes_with(self.name, *marks)}
        return len(self._seen)

    def left_overs(self) -> dict[str, object]:
        """What is still there or has changed, by kind; empty if all is well."""
        found: dict[str, object] = {
            "processes": [pid for pid, start in self._seen.items() if start and started_at(pid) == start],
            "cgroups": cgroups_named(self.name),
            "machine": (fingerprint(), existing_places()) != self._before,
        }
        return {kind: left for kind, left in found.items() if left}


@pytest.fixture
def run(binaries: Path) -> Iterator[Run]:
    made = Run(binaries)
    yield made
    made.process.kill()
    made.process.wait()


@pytest.mark.timeout(240)
def test_nothing_outlives_a_run_that_is_killed(run: Run) -> None:
    directory = Path(run.said())
    assert directory.is_dir()
    assert run.note_processes(str(directory)) > 8
    assert cgroups_named(run.name)

    run.process.kill()

    # By whom, if the run is dead: the kernel, and a child that outlives it.
    wait_until("everything is gone", lambda: not run.left_overs() and not directory.exists(), 60.0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("signum", "seconds"), [(signal.SIGINT, 0.5), (signal.SIGTERM, 2.0), (signal.SIGINT, 6.0)]
)
def test_an_interrupt_in_the_middle_of_the_start_takes_it_down(
    run: Run, signum: signal.Signals, seconds: float
) -> None:
    time.sleep(seconds)
    run.note_processes()

    run.process.send_signal(signum)

    assert run.process.wait(60.0) == 128 + signum
    assert run.left_overs() == {}


def existing_places() -> list[str]:
    return [place for place in PLACES if Path(place).exists()]


def processes_with(*marks: str) -> list[int]:
    """Those that have one of the marks in their command line or the path of their cgroup."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_text(errors="replace") + (path / "cgroup").read_text()
        except OSError:  # it ended meanwhile
            continue
        if any(mark in text for mark in marks):
            found.append(int(path.name))
    return found


def cgroups_named(name: str) -> list[str]:
    """The cgroups with that in their name, also where no cgroups are mounted."""
    # A pod's cgroup may go while find walks: then it fails, and has found what there is all the same.
    script = f'{cgroups.here().mount_script}\nfind {cgroups.ROOT} -name "{name}-*" || true'
    command = ["unshare", "--mount", "--propagation=private", "bash", "-ec", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
