"""`userproxy config check|show`, and the settings as options."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from userproxy.cli.main import cli
from userproxy.config import declared, read

if TYPE_CHECKING:
    from pathlib import Path


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["config", *arguments], prog_name="userproxy", env=environment)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "userproxy.yaml"
    found.write_text("manifests: /services\ncluster-cidr: [10.0.0.0/14, fd00::/48]\nhost-ip: 127.0.0.1\n")
    return found


def test_all_that_is_wrong_is_told_at_once_with_its_place(file: Path) -> None:
    file.write_text(
        "modes: x\nworkers: many\ncluster-cidr: 10\nmanifests: /a\nmanifests: /b\nlog-level: warn\n"
    )
    told = invoke("check", str(file), "--port-range", "1", "--udp-sessions", "x", "--proxy-mode", "fast")
    assert told.exit_code == 1
    assert told.stdout.splitlines() == [
        f"{file}:1:1: there is no setting modes: did you mean mode?",
        f"{file}:2:1: workers: 'many' is not `auto` or a number from 1 to 256",
        f"{file}:3:1: cluster-cidr: 10 is not text: put it in quotes",
        f"{file}:5:1: manifests: stands there twice",
        f"{file}:6:1: log-level: 'warn' is none of debug, info, warning, error: did you mean warning?",
        "--proxy-mode: 'fast' is none of kube-proxy's modes on Linux: userspace, iptables, ipvs, nftables",
        "--port-range: '1' is not FIRST-LAST, such as 10400-18399",
        "--udp-sessions: 'x' is not a whole number",
    ]
    assert told.stderr == "userproxy: 8 mistakes in the configuration\n"


def test_a_good_file_is_told_too(file: Path) -> None:
    told = invoke("check", str(file), "--masquerade-all")
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        "warning: set for kube-proxy, and without effect here: --masquerade-all",
        "the configuration is good: 3 settings chosen",
    ]


def test_what_this_node_lacks_does_not_count(file: Path) -> None:
    file.write_text("host-ip: 192.0.2.7\n")
    told = invoke("check", str(file))
    assert told.exit_code == 0
    assert f"on this node: {file}:1:1: host-ip: 192.0.2.7 is not an address of this node" in told.stdout
    assert "on this node: nothing to take Services from" in told.stdout


def test_a_file_is_named_once(file: Path) -> None:
    told = invoke("check", str(file), "--config", str(file))
    assert (told.exit_code, told.stdout) == (2, "")
    assert "name the file once" in told.stderr


def test_show_tells_where_each_value_is_from(file: Path) -> None:
    arguments = ("--hostname-override=Node-1", "--workers", "AUTO", "-o", "json")
    told = invoke("show", str(file), *arguments, USERPROXY_ADMIN_SOCKET="/run/other")
    rows = {row["setting"]: (row["value"], row["source"]) for row in json.loads(told.stdout)}
    assert list(rows) == [setting.key for setting in declared()]
    assert rows["cluster-cidr"] == ("10.0.0.0/14,fd00::/48", f"{file}:2:1 cluster-cidr")
    assert rows["node-name"] == ("node-1", "--hostname-override")
    assert rows["workers"] == ("auto", "--workers")
    assert rows["admin-socket"] == ("/run/other", "environment USERPROXY_ADMIN_SOCKET")
    assert rows["drain-seconds"] == (30.0, "default")
    assert rows["udp-sessions"] == (None, "default")


def test_show_as_yaml_is_a_file_that_comes_to_the_same(tmp_path: Path, file: Path) -> None:
    flags = ("--log-level", "debug", "--udp-sessions", "70", "--external-ips", "false")
    told = invoke("show", "--config", str(file), "-o", "yaml", *flags)
    assert f"cluster-cidr: 10.0.0.0/14,fd00::/48  # {file}:2:1 cluster-cidr\n" in told.stdout
    assert f"# node-name: {os.uname().nodename.lower()}  # this node\n" in told.stdout
    again = tmp_path / "again.yaml"
    again.write_text(told.stdout)
    wanted = read({"log_level": "debug", "udp_sessions": 70, "external_ips": False}, file)
    assert read({}, again).settings == wanted.settings


def test_show_refuses_what_makes_no_sense_in_lines_of_their_own() -> None:
    told = invoke("show", "--udp-sessions", "x", "--mode", "iptables")
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.splitlines() == [
        "userproxy config show: --mode: 'iptables' is none of redirect-to-host, redirect-to-pod, steered",
        "userproxy config show: --udp-sessions: 'x' is not a whole number (see userproxy config show --help)",
    ]


@pytest.mark.parametrize("text", ["true", "TRUE", "1"])
def test_a_flag_may_be_written_as_kube_proxy_takes_it(text: str) -> None:
    told = invoke("show", f"--cluster-ips-from-outside={text}", "--v=2", "--profiling=false", "-o", "json")
    rows = {row["setting"]: row["value"] for row in json.loads(told.stdout)}
    assert rows["cluster-ips-from-outside"] is True
    assert told.stderr == ""
