"""The configuration: what wins, what is filled in, and what is refused with which words."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from userproxy.cli.run import run
from userproxy.config import ConfigError, Setting, declared, load, read
from userproxy.model.address import Address, IpFamily
from userproxy.model.service import Path as TrafficPath
from userproxy.ops.client import DEFAULT_PATH

if TYPE_CHECKING:
    from pathlib import Path

ENOUGH: dict[str, Any] = {"manifests": "services.yaml", "host_ip": "127.0.0.1", "node_name": "host1"}


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "userproxy.yaml"
    file.write_text("mode: redirect-to-pod\nport-range: 20000-20009\nmanifests: /other\n")
    config = load({**ENOUGH, "workers": None}, file)
    assert config.mode is TrafficPath.REDIRECT_TO_POD
    assert config.ports == range(20000, 20010)
    assert str(config.manifests) == "services.yaml"
    assert config.workers == 1


@pytest.mark.parametrize("auto", ["auto", "AUTO", "Auto"])
def test_auto_is_a_worker_for_each_processor(auto: str) -> None:
    assert load({**ENOUGH, "workers": auto}, None).worker_count >= 1
    assert load({**ENOUGH, "workers": 3}, None).worker_count == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port_range": "10400"}, "port-range: '10400' is not FIRST-LAST"),
        ({"port_range": "9-1"}, "port-range: '9-1'"),
        ({"port_range": "1-70000"}, "port-range: '1-70000'"),
        ({"host_ip": "host1"}, "host-ip: 'host1' is not an IP address"),
        ({"host_ip": "fe80::1"}, "host-ip: fe80::1 is valid on one link alone"),
        ({"host_ip": "::ffff:127.0.0.1"}, "is an IPv4 address in the form of IPv6: write 127.0.0.1"),
        ({"host_ip": "127.0.0.1,127.0.0.2"}, "host-ip: 127.0.0.1 and 127.0.0.2 are both IPv4"),
        ({"host_ip": "127.0.0.1,2001:db8::7"}, "host-ip: 2001:db8::7 is not an address of this node"),
        ({"host_ip": "192.0.2.7"}, "host-ip: 192.0.2.7 is not an address of this node"),
        ({"drain_seconds": -1.0}, "drain-seconds: -1.0"),
        ({"drain_seconds": float("nan")}, "drain-seconds: nan"),
        ({"linger_seconds": 0.0}, "linger-seconds: 0.0"),
        ({"orphan_seconds": -1.0}, "orphan-seconds: -1.0"),
        ({"workers": 257}, "workers: 257 is not `auto` or a number from 1 to 256"),
        ({"on_stop": "leave"}, "on-stop: 'leave' is none of keep, remove"),
        ({"workers": 0}, "workers: 0 is not `auto` or a number from 1 to 256"),
        ({"workers": "many"}, "workers"),
        (
            {"kubeconfig": "/some/kubeconfig"},
            "--manifests and --kubeconfig: Services come",
        ),
        ({"healthz_bind_address": "everywhere"}, "healthz-bind-address: 'everywhere' is not IP:PORT"),
        ({"healthz_bind_address": ":many"}, "healthz-bind-address: ':many' is not IP:PORT"),
        ({"mode": "redirect"}, "mode"),
        ({"nodeport_addresses": " "}, "nodeport-addresses: is empty: `primary`, `all`"),
        ({"nodeport_addresses": "primary,all"}, "name either `primary` or networks, not both"),
    ],
)
def test_a_wrong_value_is_named_with_its_setting(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({**ENOUGH, **flags}, None)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"port-ranges: 1-2", "there is no setting port-ranges: did you mean port-range?"),
        (b"Drain_Seconds: 1", "did you mean drain-seconds?"),
        (b"colour: blue", "there is no setting colour: `userproxy run --help` lists them"),
        (b"1: 2", "there is no setting 1:"),
        (b"- mode", "must be a mapping"),
        (b"mode: [", "cannot be read as YAML"),
        (b"\xff\xfe", "cannot be read as YAML"),
        (b"workers: [1]", "workers"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "userproxy.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load(ENOUGH, file)
    assert str(file) in str(refused.value)
    assert words in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: does not exist"):
        load(ENOUGH, tmp_path / "nowhere.yaml")


def test_a_file_that_cannot_be_opened_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(ENOUGH, tmp_path)
    assert str(refused.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_port_alone_means_every_address() -> None:
    config = load({**ENOUGH, "healthz_bind_address": ":10256", "metrics_bind_address": ""}, None)
    every = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - as asked for
    assert config.healthz_address == Address(every, 10256)
    assert config.metrics_address is None


def test_what_has_addresses_in_it_takes_both_families() -> None:
    config = load({**ENOUGH, "host_ip": "::1, 127.0.0.1", "cluster_cidr": "fd00::/48,10.0.0.0/14"}, None)
    assert config.host_ips == ("127.0.0.1", "::1")
    assert config.host_ip_follows == ()
    assert [str(network) for network in config.pod_networks] == ["fd00::/48", "10.0.0.0/14"]
    assert load(ENOUGH, None).host_ip_follows == (IpFamily.IPV6,), "nobody has named one of these"


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("primary", []),
        ("localhost, primary", []),
        ("localhost", ["127.0.0.0/8", "::1/128"]),
        ("all", ["0.0.0.0/0", "::/0"]),
        ("10.0.0.0/8,localhost", ["10.0.0.0/8", "127.0.0.0/8", "::1/128"]),
    ],
)
def test_node_ports_answer_where_kube_proxy_s_words_say(text: str, networks: list[str]) -> None:
    config = load({**ENOUGH, "nodeport_addresses": text}, None)
    assert [str(network) for network in config.node_port_networks] == networks


def test_an_empty_path_is_none() -> None:
    assert load({**ENOUGH, "kubeconfig": ""}, None).kubeconfig is None


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "userproxy.yaml"
    file.write_bytes(b"")
    assert load(ENOUGH, file) == load(ENOUGH, None)


# --- one declaration of each setting


@pytest.mark.parametrize("setting", declared(), ids=lambda setting: setting.key)
def test_a_setting_has_a_flag_a_key_in_the_file_and_says_what_it_does(
    tmp_path: Path, setting: Setting
) -> None:
    flags = {option.name: option for option in run.params if isinstance(option, click.Option)}
    flag = flags[setting.field]
    assert flag.opts == [f"--{setting.key}"]
    assert flag.help == f"{setting.help} [default: {setting.default}]"
    assert setting.help.endswith(".")
    assert setting.default
    file = tmp_path / "userproxy.yaml"
    file.write_text(f"{setting.key}: {{}}\n")
    with pytest.raises(ConfigError) as refused:
        load({}, file)
    assert "there is no setting" not in str(refused.value)


def test_there_is_no_flag_beside_those_of_the_settings_but_one_for_the_file() -> None:
    flags = {option.name for option in run.params if isinstance(option, click.Option) and not option.hidden}
    assert flags - {setting.field for setting in declared()} == {"config_file"}


def test_the_access_log_s_file_must_have_a_directory_and_be_none(tmp_path: Path) -> None:
    for file, what in (
        (tmp_path, "is a directory"),
        (tmp_path / "a" / "b", "is in no directory that exists"),
    ):
        with pytest.raises(ConfigError, match=f"access-log-file: {re.escape(str(file))} {what}: name a file"):
            load({**ENOUGH, "access_log_file": file}, None)
    file = tmp_path / "access.log"
    assert load({**ENOUGH, "access_log_file": file}, None).access_log_file == file


def test_a_default_is_shown_as_it_may_be_written(tmp_path: Path) -> None:
    shown = {setting.key: setting.default for setting in declared() if " " not in setting.default}
    file = tmp_path / "userproxy.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in shown.items()))
    assert len(shown) >= 10
    assert read({}, file).settings == read({}, None).settings


@pytest.mark.parametrize(
    "part",
    [
        "--mode [redirect-to-host|redirect-to-pod|steered]",
        "--workers N|auto",
        "--drain-seconds SECONDS",
        "[env var: USERPROXY_ADMIN_SOCKET]",
        "[default: the host name]",
        "[default: 30]",
    ],
)
def test_help_shows_choices_defaults_and_the_variable(part: str) -> None:
    assert part in " ".join(CliRunner().invoke(run, ["--help"], terminal_width=200).output.split())


def test_the_commands_look_for_the_daemon_where_it_listens() -> None:
    assert str(load(ENOUGH, None).admin_socket) == DEFAULT_PATH
