"""`userproxy lab run` shows what really happens, and says so when it does not."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from userproxy.lab.deployment import Lab
from userproxy.lab.story.story import Story
from userproxy.lab.topology import REFERENCE_WITH_DNS
from userproxy.model.service import Path as Mode

NAME = (
    r"client +10\.0\.1\.3:(\d+) -> 10\.3\.240\.10:53 .*"
    r"netfilter +10\.0\.1\.3:\1 -> {led_to} .*"
    r"dns +server-service\.default\.svc\.cluster\.local is 10\.3\.241\.152 .*"
)
CONNECTION = {
    Mode.REDIRECT_TO_HOST: (
        r"client +10\.0\.1\.3:(?P<port>\d+) -> 10\.3\.241\.152:80 .*"
        r"netfilter +10\.0\.1\.3:(?P=port) -> 10\.100\.0\.2:10400 .*"
        r"userproxy +(?P<source>10\.[\d.]+:\d+) -> (?P<pod>10\.0\.[12]\.2):8080 .*"
        r"server[12] +(?P<name>server[12]) answers (?P=source) "
    ),
    Mode.REDIRECT_TO_POD: (
        r"client +(?P<source>10\.0\.1\.3:\d+) -> 10\.3\.241\.152:80 .*"
        r"netfilter +(?P=source) -> (?P<pod>10\.0\.[12]\.2):8080 .*"
        r"server[12] +(?P<name>server[12]) answers (?P=source) "
    ),
    Mode.STEERED: (
        r"client +(?P<source>10\.0\.1\.3:\d+) -> 10\.3\.241\.152:80 .*"
        r"userproxy +has chosen (?P<chosen>server[12]) .*"
        r"netfilter +(?P=source) -> (?P<pod>10\.0\.[12]\.2):8080 .*"
        r"server[12] +(?P<name>(?P=chosen)) answers (?P=source) "
    ),
}
"""On the way of the second one there is no userproxy; on that of the third one it is asked once."""
LED_TO = {
    Mode.REDIRECT_TO_HOST: r"10\.100\.0\.2:1040[12]",
    Mode.REDIRECT_TO_POD: r"10\.0\.[12]\.4:53",
    Mode.STEERED: r"10\.0\.[12]\.4:53",
}


@pytest.mark.parametrize("mode", Mode)
def test_one_request_by_name_is_followed_hop_by_hop(able: None, lab_name: str, mode: Mode) -> None:  # noqa: ARG001 - able is a condition
    command = [str(Path(sys.executable).with_name("userproxy")), "lab", "run", "--mode", mode.value]
    command += ["--name", f"{lab_name}-story"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    assert (told.returncode, told.stderr) == (0, ""), told.stdout
    assert "✗" not in told.stdout
    way = NAME.format(led_to=LED_TO[mode]) + CONNECTION[mode]
    hops = re.search(rf"client \$ curl http://server-service/hold/\d+\n.*{way}", told.stdout, re.DOTALL)
    assert hops, told.stdout
    assert {"10.0.1.2": "server1", "10.0.2.2": "server2"}[hops["pod"]] == hops["name"]


@pytest.mark.parametrize("mode", Mode)
def test_a_pod_dies_step_by_step(able: None, lab_name: str, mode: Mode) -> None:  # noqa: ARG001 - likewise
    command = [str(Path(sys.executable).with_name("userproxy")), "lab", "run", "--mode", mode.value]
    command += ["--name", f"{lab_name}-story", "--step", "--kill-a-pod"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90, input="\n" * 30)
    assert told.returncode == 0, told.stdout
    assert "✗" not in told.stdout
    assert "✓ userproxy has taken server" in told.stdout
    noticed = "met the dead pod" if mode is Mode.REDIRECT_TO_POD else "no client notices"
    assert noticed in told.stdout
    assert told.stderr.count("Enter goes on") > 10


def test_a_reader_who_leaves_takes_the_lab_down(able: None, lab_name: str) -> None:  # noqa: ARG001 - likewise
    command = [str(Path(sys.executable).with_name("userproxy")), "lab", "run", "--step"]
    command += ["--name", f"{lab_name}-story"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90, input="\n")
    assert told.returncode == 130, told.stderr
    assert not Lab(f"{lab_name}-story").directory.exists()


class LabWithoutServer2(Lab):
    """A lab in which one of the Service's pods has died, though its manifest still names it."""

    def up(self) -> None:
        """Bring it up, and end the server of a pod."""
        super().up()
        self.processes["server2"].kill()


def test_what_is_not_so_is_marked_and_fails_the_story(able: None, lab_name: str) -> None:  # noqa: ARG001 - likewise
    printed = io.StringIO()
    lab = LabWithoutServer2(f"{lab_name}-story", deployment=REFERENCE_WITH_DNS)
    story = Story(lab, Console(file=printed, width=120, highlight=False))
    story.tell()
    assert not story.held
    assert "✗ server1 and server2 both answered: no answer of server2" in printed.getvalue()
