"""Host ports are remembered over restarts, in a file that is whole or not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.control.port_file import HostPorts, PortFile
from userproxy.model.service import PoolName
from userproxy.tests.control.rig import node

if TYPE_CHECKING:
    from pathlib import Path

CART, WEB = PoolName.of(node.CART), PoolName.of(node.WEB)
PORTS = range(10400, 10410)


def loaded(directory: Path) -> HostPorts:
    """Those of a daemon that starts."""
    return HostPorts.load(PORTS, PortFile(directory))


async def test_ports_are_the_same_after_a_restart(tmp_path: Path) -> None:
    ports = loaded(tmp_path / "state" / "deep")
    ports.book.assign([CART])
    ports.book.assign([WEB])
    await ports.remember()
    assert loaded(tmp_path / "state" / "deep").book.assign([WEB, CART]) == {WEB: 10401, CART: 10400}


async def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    ports = loaded(tmp_path)
    ports.book.assign([WEB])
    await ports.remember()
    written = (tmp_path / "ports.json").stat().st_ino
    ports.book.assign([WEB])
    await ports.remember()
    assert (tmp_path / "ports.json").stat().st_ino == written


def test_a_change_replaces_the_file_and_leaves_no_draft(tmp_path: Path) -> None:
    file = PortFile(tmp_path)
    file.write({"default/web": 10400})
    before = (tmp_path / "ports.json").open("rb")
    file.write({"default/web": 10401})
    with before:
        assert before.read() == b'{"default/web":10400}', "whoever reads it has one or the other"
    assert file.read() == {"default/web": 10401}
    assert [path.name for path in tmp_path.iterdir()] == ["ports.json"]


def test_a_draft_that_a_crash_left_is_of_no_account(tmp_path: Path) -> None:
    PortFile(tmp_path).write({"default/web": 10400})
    (tmp_path / "ports.new").write_bytes(b'{"default/w')
    file = PortFile(tmp_path)
    assert file.read() == {"default/web": 10400}
    file.write({})
    assert [path.name for path in tmp_path.iterdir()] == ["ports.json"]


def test_no_file_means_no_port_is_remembered(tmp_path: Path) -> None:
    with capture_logs() as lines:
        assert loaded(tmp_path).book.dump() == {}
    assert lines == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b"17"])
def test_a_file_that_makes_no_sense_is_told_and_does_not_stop_the_daemon(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "ports.json").write_bytes(content)
    with capture_logs() as lines:
        assert loaded(tmp_path).book.dump() == {}
    (line,) = lines
    assert (line["event"], line["file"]) == ("a saved host port is ignored", str(tmp_path / "ports.json"))


def test_one_entry_that_makes_no_sense_does_not_cost_the_others(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_bytes(b'{"default/web": 10400, "web": 10401, "shop/cart:http": 80}')
    with capture_logs() as lines:
        assert loaded(tmp_path).book.dump() == {"default/web": 10400}
    assert len(lines) == 2


def test_a_file_that_cannot_be_read_is_told_and_does_not_stop_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "ports.json").mkdir()
    with capture_logs() as lines:
        assert loaded(tmp_path).book.dump() == {}
    assert [line["error"] for line in lines] == ["Is a directory"]


async def test_a_directory_that_cannot_be_written_is_told_with_the_remedy_and_tried_again(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "state"
    directory.write_text("a file is in the way")
    ports = HostPorts.load(PORTS, PortFile(directory / "userproxy"))
    ports.book.assign([WEB])
    with capture_logs() as lines:
        await ports.remember()
    assert "--state-dir" in lines[-1]["remedy"]
    directory.unlink()
    await ports.remember()
    assert (directory / "userproxy" / "ports.json").exists()
