"""The process that takes away what the kernel does not: cgroups and files.

Processes, mounts, links and network namespaces of the rig end with the processes that hold them, and these
with the test process (PR_SET_PDEATHSIG). Cgroups and the directory would stay if it is killed. So a child in
a session of its own makes them, waits until its stdin is closed, however that comes about, and removes them.

`Caretaker` starts it; `python -m integration.cluster.rig.caretaker CGROUP...` is the child. It says
`ready` and the directory, or why not, on stdout, and at the end what it could not remove.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.rig import cgroups
from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

READY = "ready"
_TOP = Path(__file__).parents[3]
_END_SECONDS = 300.0
"""Much longer than it takes, but for a busy machine after many tests."""
_PATIENCE_SECONDS = 10.0


class Caretaker:
    """Owns the rig's directory and cgroups, from `start` until `stop` or the end of this process.

    Attributes:
        directory: for everything that the rig writes.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        """`groups`: the names of the cgroups, which no other rig may have."""
        self._groups = list(groups)
        self._process: subprocess.Popen[str] | None = None
        self.directory = Path()

    def start(self) -> None:
        """Make directory and cgroups.

        Raises:
            ClusterError: the machine refuses; nothing is left.
        """
        script = f'set -e\n{cgroups.here().mount_script}\nexec "$@"'
        child = [sys.executable, "-m", "integration.cluster.rig.caretaker", *self._groups]
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "bash", "-c", script, "caretaker", *child],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=_TOP,
            start_new_session=True,  # Ctrl-C is for us alone
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        word, _, directory = said.partition(" ")
        if word != READY:
            said = " ".join([said, *self._process.stdout.read().split()])
            self._process.wait()
            self._process = None
            raise ClusterError(said or "the caretaker of the cgroups ended and said nothing")
        self.directory = Path(directory)

    def stop(self) -> None:
        """Have everything removed. Whatever runs in the rig must have been told to end.

        Raises:
            ClusterError: something would not go.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            left, _ = process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{self.directory} is not gone after {_END_SECONDS:g} s") from None
        if left.strip():
            raise ClusterError(f"left of the cluster: {left.strip()}")


def main(names: Sequence[str]) -> None:
    """The child's whole life."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    groups = cgroups.Groups(names, cgroups.here())
    try:
        groups.make()
    except ClusterError as error:
        groups.remove()
        sys.exit(str(error))
    directory = Path(tempfile.mkdtemp(prefix="userproxy-cluster-"))
    print(READY, directory, flush=True)
    sys.stdin.read()
    left = [*groups.remove(), *_remove(directory)]
    with contextlib.suppress(OSError):  # nobody may be there to hear it
        print("\n".join(map(str, left)))


def _remove(directory: Path) -> list[Path]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while directory.exists() and time.monotonic() < deadline:
        # Some 10,000 files a node and image: three times as fast as Python.
        subprocess.run(
            ["rm", "-rf", "--one-file-system", str(directory)], stderr=subprocess.DEVNULL, check=False
        )
        time.sleep(0.1)
    return [directory] if directory.exists() else []


if __name__ == "__main__":
    main(sys.argv[1:])
