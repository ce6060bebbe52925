"""`userproxy lab run` shows what really happens, and says so when it does not."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from userproxy.lab.deployment import Lab
from userproxy.lab.story import Story


def test_one_request_is_followed_hop_by_hop(able: None, lab_name: str) -> None:  # noqa: ARG001 - able is a condition
    command = [str(Path(sys.executable).with_name("userproxy")), "lab", "run", "--name", f"{lab_name}-story"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    assert (told.returncode, told.stderr) == (0, ""), told.stdout
    assert "✗" not in told.stdout
    hops = re.search(
        r"client +10\.0\.1\.3:(\d+) -> 10\.3\.241\.152:80 .*"
        r"netfilter +10\.0\.1\.3:\1 -> 10\.100\.0\.2:10400 .*"
        r"userproxy +(10\.[\d.]+:\d+) -> (10\.0\.[12]\.2):8080 .*"
        r"server[12] +(server[12]) answers \2 ",
        told.stdout,
        re.DOTALL,
    )
    assert hops, told.stdout
    assert {"10.0.1.2": "server1", "10.0.2.2": "server2"}[hops[3]] == hops[4]


class LabWithoutServer2(Lab):
    """A lab in which one of the Service's pods has died, though its manifest still names it."""

    def up(self) -> None:
        """Bring it up, and end the server of a pod."""
        super().up()
        self.processes["server2"].kill()


def test_what_is_not_so_is_marked_and_fails_the_story(able: None, lab_name: str) -> None:  # noqa: ARG001 - likewise
    printed = io.StringIO()
    story = Story(LabWithoutServer2(f"{lab_name}-story"), Console(file=printed, width=120, highlight=False))
    story.tell()
    assert not story.held
    assert "✗ server1 and server2 both answered: no answer of server2" in printed.getvalue()
