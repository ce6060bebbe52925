"""iperf3, with its control connection beside the data, and SSH, with its prompts, through a Service."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.programs import running
from integration.services import published
from userproxy.lab.topology import SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab


@pytest.mark.parametrize("direction", ["up", "down"])
def test_iperf3(lab: Lab, direction: str) -> None:
    with (
        running(lab, "iperf3", "server2", 5201, "iperf3", "-4", "-s", "-p", "5201"),
        published(lab, "iperf3", "10.3.241.93", [Address(SERVER2.ip, 5201)], port=5201) as frontend,
    ):
        options = ("-c", frontend.ip, "-t", "3", "-P", "2", "-J", *(("-R",) if direction == "down" else ()))
        result = json.loads(lab.exec("client", "iperf3", *options).stdout)
        assert "error" not in result
        rate = result["end"]["sum_received"]["bits_per_second"] / 1e9
        print(f"iperf3, 2 streams {direction}: {rate:.1f} Gbit/s")
        assert rate > 0.1


@pytest.fixture
def ssh_directory(tmp_path: Path) -> Path:
    """Keys of a host and of a user, and the configuration of an sshd that takes nothing else."""
    if not shutil.which("sshd") or not shutil.which("ssh"):
        pytest.skip("sshd and ssh are not on PATH: apt-get install openssh-server openssh-client")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "config").write_text(
        f"Port 2222\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\n"
        f"UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile {tmp_path}/pid\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    return tmp_path


def test_an_ssh_session(lab: Lab, ssh_directory: Path) -> None:
    sshd = ("/usr/sbin/sshd", "-D", "-e", "-f", str(ssh_directory / "config"))
    with (
        running(lab, "sshd", "server2", 2222, *sshd),
        published(lab, "ssh", "10.3.241.94", [Address(SERVER2.ip, 2222)], port=22) as frontend,
    ):
        options = ("-i", str(ssh_directory / "user"), "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes")
        known = ("-o", f"UserKnownHostsFile={ssh_directory}/known", "-o", "LogLevel=ERROR")
        ssh = ("ssh", *options, *known, f"root@{frontend.ip}")
        text = "a line\n" * 2_000_000
        told = lab.exec("client", *ssh, "sha256sum; exit 7", stdin=text, check=False)
        assert told.returncode == 7, told.stderr
        assert told.stdout.split()[0] == hashlib.sha256(text.encode()).hexdigest()
        assert lab.exec("client", *ssh, "echo $SSH_CLIENT").stdout.split()[0] == "10.100.0.2"
