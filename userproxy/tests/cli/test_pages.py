"""What README and docs/ have a reader type, the command line takes."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest

from userproxy.cli.main import COMMANDS, cli
from userproxy.tests.cli.pages import PAGES, ROOT, blocks, mentions
from userproxy.tests.cli.test_main import find

if TYPE_CHECKING:
    from pathlib import Path

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@by_page
def test_each_command_in_a_block_may_be_given(page: Path) -> None:
    for command in (command for block in blocks(page) for command in block):
        for ours in re.findall(r"(?:^|-- )(userproxy .*)", command.replace("$(NODE_NAME)", "host1")):
            assert isinstance(find(shlex.split(ours)[1:]), click.Command)


@by_page
def test_each_command_that_is_named_is_there_with_its_options(page: Path) -> None:
    for mention in mentions(page):
        name, *words = mention.split()[1:]
        if name.startswith("-"):
            continue
        for one in name.split("|"):
            assert one in COMMANDS, mention
            command = cli.get_command(click.Context(cli), one)
            assert command is not None
            assert {
                word.partition("=")[0].strip("[]") for word in words if word.startswith(("--", "[--"))
            } <= (_options(command)), mention


def _options(command: click.Command) -> set[str]:
    """Those of a command, and of the commands below it."""
    own = {each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union({"--help"}, *map(_options, below))


def test_there_are_commands_to_look_at() -> None:
    assert sum(len(block) for page in PAGES for block in blocks(page)) > 15
    assert sum(len(mentions(page)) for page in PAGES) > 25
