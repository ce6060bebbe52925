"""The configuration: what wins, what is filled in, and what is refused with which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from userproxy.config import ConfigError, load
from userproxy.model.address import Address
from userproxy.model.service import Path as TrafficPath

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
        ({"host_ip": "::1"}, "host-ip: ::1 is an IPv6 address"),
        ({"host_ip": "192.0.2.7"}, "host-ip: 192.0.2.7 is not an address of this node"),
        ({"drain_seconds": -1.0}, "drain-seconds: -1.0"),
        ({"drain_seconds": float("nan")}, "drain-seconds: nan"),
        ({"linger_seconds": 0.0}, "linger-seconds: 0.0"),
        ({"orphan_seconds": -1.0}, "orphan-seconds: -1.0"),
        ({"workers": 0}, "workers: 0 is not `auto` or a number from 1 on"),
        ({"workers": "many"}, "workers"),
        ({"kubeconfig": "/some/kubeconfig"}, "manifests and kubeconfig"),
        ({"healthz_bind_address": "everywhere"}, "healthz-bind-address: 'everywhere' is not IP:PORT"),
        ({"healthz_bind_address": ":many"}, "healthz-bind-address: ':many' is not IP:PORT"),
        ({"mode": "redirect"}, "mode"),
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
        (b"port-ranges: 1-2", "port-ranges"),
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
    assert config.healthz_address == Address("0.0.0.0", 10256)  # noqa: S104 - as asked for
    assert config.metrics_address is None


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "userproxy.yaml"
    file.write_bytes(b"")
    assert load(ENOUGH, file) == load(ENOUGH, None)
