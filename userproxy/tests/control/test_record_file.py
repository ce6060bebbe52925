"""What is remembered of connections outlives the daemon that stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.control.record_file import RecordFile

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_is_left_once_and_taken_once(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "state")
    assert file.take() == []
    file.leave([b"one", b"two"])
    (path,) = (tmp_path / "state").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600, "who talks to whom is nobody else's business"
    assert RecordFile(tmp_path / "state").take() == [b"one", b"two"]
    assert file.take() == []
    assert list((tmp_path / "state").iterdir()) == []


def test_nothing_makes_no_file(tmp_path: Path) -> None:
    RecordFile(tmp_path).leave([])
    assert list(tmp_path.iterdir()) == []


def test_what_makes_no_sense_is_forgotten_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = RecordFile(tmp_path)
    file.leave([b"one"])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"nonsense")
    assert file.take() == []
    assert file.take() == []
    assert "connections of before are forgotten" in capsys.readouterr().out


def test_a_directory_that_cannot_be_written_to_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    RecordFile(tmp_path / "file").leave([b"one"])
    assert "connections that are over are forgotten" in capsys.readouterr().out
