"""What a person does to the files, and what is served then. Each test drives `reload` by hand."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from userproxy.model.snapshot import EMPTY, Snapshot
from userproxy.sources import manifests, status_of
from userproxy.sources.manifests import ManifestSource
from userproxy.tests.sources.objects import endpoint_slice, service

OTHER = service("other", clusterIP="10.3.240.9")


def write(path: Path, *values: dict[str, Any]) -> Path:
    text = json.dumps(values[0]) if path.suffix == ".json" else yaml.safe_dump_all(values)
    path.write_text(text)
    return path


def served(snapshot: Snapshot) -> list[str]:
    return sorted(name.service for name in snapshot.services)


def reasons(snapshot: Snapshot) -> list[str]:
    return [problem.reason for problem in snapshot.problems]


def test_the_files_of_a_directory_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", service(), endpoint_slice())
    write(tmp_path / "b.json", OTHER)
    write(tmp_path / "c.yml", service("third", clusterIP="10.3.240.10"))
    (tmp_path / "README.md").write_text("not YAML: [")
    (tmp_path / ".#a.yaml").symlink_to("editor@host")
    (tmp_path / "deeper").mkdir()
    write(tmp_path / "deeper" / "d.yaml", service("hidden", clusterIP="10.3.240.11"))
    snapshot = ManifestSource(tmp_path).reload()
    assert served(snapshot) == ["other", "server-service", "third"]
    assert snapshot.problems == ()


def test_one_file_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    assert served(ManifestSource(write(tmp_path / "services.conf", service())).reload()) == ["server-service"]


def test_nothing_changed_means_the_very_same_snapshot(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(tmp_path)
    snapshot = source.reload()
    assert source.reload() is snapshot
    os.utime(path)
    assert source.reload({"a.yaml"}) is snapshot


def test_a_file_added_changed_and_deleted(tmp_path: Path) -> None:
    source = ManifestSource(tmp_path)
    assert source.reload() is EMPTY
    path = write(tmp_path / "a.yaml", service())
    assert served(source.reload()) == ["server-service"]
    write(path, service(), OTHER)
    assert served(source.reload()) == ["other", "server-service"]
    path.unlink()
    assert source.reload().services == {}


def test_a_change_that_stat_cannot_tell_is_seen_when_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "_signature", lambda status: (status.st_ino,))
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(tmp_path)
    source.reload()
    write(path, OTHER)
    assert served(source.reload()) == ["server-service"]
    assert served(source.reload({"a.yaml"})) == ["other"]


def test_a_config_map_volume_swaps_its_link(tmp_path: Path) -> None:
    for version, content in (("..1", service()), ("..2", OTHER)):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "a.yaml", content)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    source = ManifestSource(tmp_path)
    assert served(source.reload()) == ["server-service"]
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert served(source.reload()) == ["other"]


def test_a_bad_file_keeps_its_last_good_state_whole_and_touches_no_other(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(tmp_path)
    source.reload()
    write(path, service(), OTHER, service("third", ports=[{"port": "http"}]))
    write(tmp_path / "b.yaml", service("fresh", clusterIP="10.3.240.10"))
    snapshot = source.reload()
    assert served(snapshot) == ["fresh", "server-service"]
    (problem,) = snapshot.problems
    assert (problem.about, problem.reason) == (str(path), "BadManifest")
    assert problem.message == (
        "document 3: Service default/third: spec.ports[0].port: expected a whole number, got a string; "
        "its last good state stays"
    )
    write(path, service())
    assert source.reload().problems == ()


def test_a_file_bad_from_the_start_is_not_served_and_the_good_ones_are(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: [")
    write(tmp_path / "b.yaml", service())
    snapshot = ManifestSource(tmp_path).reload()
    assert served(snapshot) == ["server-service"]
    assert "nothing of it is served" in snapshot.problems[0].message


def test_a_bad_file_is_logged_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(tmp_path)
    source.reload()
    with structlog.testing.capture_logs() as logs:
        write(path, service(clusterIP="10.3"))
        source.reload()
        source.reload()
        os.utime(path)
        source.reload({"a.yaml"})
    assert logs == [
        {
            "event": "manifest kept at its last good state",
            "log_level": "error",
            "file": str(path),
            "document": 1,
            "object": "Service default/server-service",
            "field": "spec.clusterIP",
            "error": "'10.3' is not an IP address",
        }
    ]
    with structlog.testing.capture_logs() as logs:
        write(path, service(clusterIP="10.4"))
        source.reload()
    assert [line["error"] for line in logs] == ["'10.4' is not an IP address"]


def test_an_object_in_two_files_counts_in_the_first_and_moves_with_it(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", service())
    write(tmp_path / "b.yaml", service(clusterIP="10.3.240.9"))
    source = ManifestSource(tmp_path)
    snapshot = source.reload()
    assert [str(port.cluster_ips[0]) for port in snapshot.services.values()] == ["10.3.241.152:80"]
    assert reasons(snapshot) == ["DuplicateObject"]
    first.unlink()
    snapshot = source.reload()
    assert [str(port.cluster_ips[0]) for port in snapshot.services.values()] == ["10.3.240.9:80"]
    assert snapshot.problems == ()


def test_two_services_with_one_address_the_first_file_keeps_it(tmp_path: Path) -> None:
    write(tmp_path / "b.yaml", service("early"))
    write(tmp_path / "c.yaml", service("a-late"))
    snapshot = ManifestSource(tmp_path).reload()
    assert served(snapshot) == ["early"]
    assert reasons(snapshot) == ["PortConflict"]


def test_what_is_not_a_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    write(tmp_path / "good.yaml", service())
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "link.yaml").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.yaml"))
        snapshot = ManifestSource(tmp_path).reload()
    assert served(snapshot) == ["server-service"]
    assert {Path(problem.about).name: problem.message.partition(";")[0] for problem in snapshot.problems} == {
        "fifo.yaml": "is not a regular file",
        "directory.yaml": "is not a regular file",
        "s.yaml": "is not a regular file",
        "link.yaml": "No such file or directory",
    }


def test_a_file_that_cannot_be_read_keeps_its_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.yaml", service())
    source = ManifestSource(tmp_path)
    before = source.reload()

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(os, "open", denied)
        for _ in range(2):
            snapshot = source.reload({"a.yaml"})
    assert snapshot.services is before.services
    assert snapshot.problems[0].message == "Permission denied; its last good state stays"
    assert len(logs) == 1
    assert source.reload().problems == ()


def test_a_file_that_vanishes_between_listing_and_reading_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(tmp_path)
    source.reload()
    monkeypatch.setattr(source, "_listing", lambda: [path])
    path.unlink()
    snapshot = source.reload()
    assert (snapshot.services, snapshot.problems) == ({}, ())


def test_the_only_file_gone_between_looking_and_reading_keeps_its_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(path)
    source.reload()
    monkeypatch.setattr(source, "_listing", lambda: [path])
    path.unlink()
    assert (served(source.reload()), reasons(source.reload())) == (["server-service"], ["BadManifest"])


def test_the_problem_of_a_bad_file_goes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("[")
    source = ManifestSource(tmp_path)
    assert reasons(source.reload()) == ["BadManifest"]
    path.unlink()
    assert source.reload().problems == ()


def test_a_file_written_while_it_is_read_is_left_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(tmp_path)
    before = source.reload()
    write(path, OTHER)
    ticks = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "_signature", lambda _: (next(ticks),))
        assert source.reload() is before
    assert served(source.reload()) == ["other"]


def test_a_file_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_BYTES", 1 << 20)
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)
    snapshot = ManifestSource(tmp_path).reload()
    assert "is larger than 1 MiB" in snapshot.problems[0].message


def test_a_file_path_that_does_not_exist_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such manifest.*nothing\.yaml"):
        ManifestSource(tmp_path / "nothing.yaml")


def test_the_only_file_may_vanish_and_come_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", service())
    source = ManifestSource(path)
    source.reload()
    path.unlink()
    snapshot = source.reload()
    assert (served(snapshot), reasons(snapshot)) == (["server-service"], ["ManifestsMissing"])
    assert status_of(source).problem == str(snapshot.problems[0])
    assert "what it held stays in effect" in snapshot.problems[0].message
    write(path, OTHER)
    snapshot = source.reload()
    assert (served(snapshot), reasons(snapshot)) == (["other"], [])


def test_the_directory_may_be_missing_at_first_and_vanish_and_come_back(tmp_path: Path) -> None:
    directory = tmp_path / "services"
    source = ManifestSource(directory)
    with structlog.testing.capture_logs() as logs:
        assert reasons(source.reload()) == ["ManifestsMissing"]
        source.reload()
    assert [line["event"] for line in logs] == ["manifests cannot be read"]
    assert not source.synced
    directory.mkdir()
    write(directory / "a.yaml", service())
    assert (served(source.reload()), source.synced) == (["server-service"], True)
    directory.rename(tmp_path / "away")
    snapshot = source.reload()
    assert (served(snapshot), reasons(snapshot)) == (["server-service"], ["ManifestsMissing"])
    directory.mkdir()
    assert source.reload().services == {}


def test_staleness_counts_from_when_everything_on_disk_was_in_effect(tmp_path: Path) -> None:
    now = 100.0
    source = ManifestSource(tmp_path, clock=lambda: now)
    source.reload()
    now = 107.0
    assert source.stale_seconds() == 0.0
    (tmp_path / "a.yaml").write_text("[")
    now = 110.0
    source.reload()
    assert source.stale_seconds() == 10.0
    write(tmp_path / "a.yaml", service())
    source.reload()
    assert source.stale_seconds() == 0.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".yaml", ".json"]))
def test_no_content_of_a_file_loses_what_was_served(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", service())
    write(tmp_path / f"b{suffix}", OTHER)
    source = ManifestSource(tmp_path)
    source.reload()
    path.write_bytes(content)
    snapshot = source.reload({path.name})
    assert served(snapshot) == ["other", "server-service"]
    assert "BadManifest" in reasons(snapshot)
