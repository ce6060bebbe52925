"""A lab without daemons for all scenarios of this folder: each starts one on host1, in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab
from userproxy.lab.processes import end_all

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.fixture(scope="session")
def idle_lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    with Lab(f"{lab_name}-life", daemons=False) as made:
        # Somebody else's rules and routes, which no start and no end of ours may touch.
        made.exec("host1", "nft", "-f", "-", stdin="table ip others { chain c { tcp dport 81 accept; }; }")
        made.exec("host1", "ip", "route", "add", "198.51.100.0/24", "via", "10.100.0.1", "table", "77")
        yield made


@pytest.fixture
def lab(idle_lab: Lab) -> Iterator[Lab]:
    """No daemon runs on host1, nothing of one is in the kernel, and only the lab's own Service is there."""
    _clear(idle_lab)  # also of files that have one daemon for all of their scenarios
    before = {path.name: path.read_text() for path in idle_lab.manifests.iterdir()}
    yield idle_lab
    _clear(idle_lab)
    for path in idle_lab.manifests.iterdir():
        if path.name not in before:
            path.unlink()
    for name, text in before.items():
        idle_lab.write_manifest(name, text)


def _clear(lab: Lab) -> None:
    """Leave no daemon on host1, nothing of one in the kernel, and nothing that it remembers."""
    running = lab.processes.get("host1-daemon")
    end_all([lab.namespace("host1")])  # also workers that have outlived their daemon
    if running:
        running.wait(5.0)
    lab.userproxy("host1", "cleanup")
    for path in [*(lab.directory / "state").rglob("*.json"), *lab.logs.glob("host1-daemon.log")]:
        path.unlink()
