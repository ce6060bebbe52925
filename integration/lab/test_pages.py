"""The commands of README and docs/ are typed as they stand, and do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE
from userproxy.tests.cli.pages import PAGES, ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

# What needs a node of its own is played by the scenarios of that page: switching.md, deploying.md.
ASKING = ("connections", "services", "backends", "status", "explain", "plan", "config")

AN_ID = re.compile(r"\b\d+-\d+$")


def commands(*names: str) -> list[str]:
    """Those of these subcommands, and what is asked of the admin socket by curl, of all pages."""
    pages = [page for page in PAGES if page.name not in ("switching.md", "deploying.md")]
    found = dict.fromkeys(command for page in pages for block in blocks(page) for command in block)
    return [each for each in found if each.split()[1] in names or each.startswith("curl --unix-socket")]


def an_ended_connection(lab: Lab) -> str:
    """The ID of one that there was."""
    lab.exec("client", "curl", "-sS", "--max-time", "5", f"http://{SERVER_SERVICE.frontend}")
    wait_until("it has ended", lambda: bool(lab.rows("host1", "connections", "--ended")), 5.0)
    return str(lab.rows("host1", "connections", "--ended")[0]["id"])


@pytest.fixture(scope="module")
def walked(able: None, lab_name: str) -> Iterator[Lab]:  # noqa: ARG001 - able is a condition
    """A lab that README's block has brought up, and takes down."""
    name = f"{lab_name}-pages"
    block = next(block for block in blocks(ROOT / "README.md") if "userproxy lab up" in block)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"USERPROXY_LAB": name, "PATH": path}
    for command in block[:-1]:
        if not command.startswith(". "):
            _typed(command, environment)
    yield Lab(name)
    _typed(block[-1], environment)
    assert not Lab(name).directory.exists()


def test_the_lab_answers_as_the_readme_has_it(walked: Lab) -> None:
    assert walked.directory.exists()


@pytest.mark.parametrize("command", commands(*ASKING))
def test_a_question_is_answered(walked: Lab, command: str) -> None:
    asked = command.replace("/run/userproxy/admin.sock", str(walked.admin_socket("host1")))
    if AN_ID.search(asked):  # that of a page is known to its author's daemon alone
        asked = AN_ID.sub(an_ended_connection(walked), asked)
    done = walked.exec("host1", "sh", "-c", asked, check=False)
    assert done.returncode == 0, done.stderr
    assert '"error"' not in done.stdout


def _typed(command: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", command], check=False, capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
