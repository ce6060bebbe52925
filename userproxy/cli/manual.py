"""The manual page, made from the commands: man(7), section 8."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from userproxy.cli.commands import Command, sections

if TYPE_CHECKING:
    from collections.abc import Iterator

_CODE = re.compile(r"`([^`]+)`")


def page(root: click.Command, program: str, version: str) -> str:
    """The whole page.

    Args:
        root: the command that all others are under.
        program: its name.
        version: of the program.
    """
    context = _context(root, None, program)
    summary = (root.get_short_help_str(limit=200)).rstrip(".")
    lines = [
        f'.TH {program.upper()} 8 "" "{program} {version}" "System administration"',
        ".SH NAME",
        f"{program} \\- {_escaped(summary)}",
        ".SH SYNOPSIS",
        f".B {program}",
        ".I COMMAND",
        "[options]",
        ".SH DESCRIPTION",
        *_paragraphs(root.help or ""),
        ".SH COMMANDS",
    ]
    for command, at in _commands(root, context):
        lines += _section(command, at)
    lines += [
        ".SH EXIT STATUS",
        "0: done; 1: failed; 2: wrong usage, or a wrong configuration; 130: interrupted.",
        ".SH FILES",
        ".TP",
        ".I /run/userproxy/admin.sock",
        "Where the daemon answers the commands.",
        ".TP",
        ".I /var/lib/userproxy",
        "Where host ports are remembered over restarts.",
    ]
    return "\n".join(lines) + "\n"


def _commands(group: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command that is no group, in the order of `--help`."""
    if not isinstance(group, click.Group):
        yield group, context
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield from _commands(command, _context(command, context, name))


def _context(command: click.Command, parent: click.Context | None, name: str) -> click.Context:
    return command.context_class(command, info_name=name, parent=parent, resilient_parsing=True)


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = [piece for piece in command.collect_usage_pieces(context) if piece]
    yield f".SS {_escaped(context.command_path)} {_escaped(' '.join(usage))}"
    yield from _paragraphs(command.help or "")
    for heading, records in sections(command, context).items():
        yield ".PP"
        yield f"{_escaped(heading)}:"
        for names, text in records:
            yield from (".TP", f".B {_escaped(names)}", _escaped(text))
    if isinstance(command, Command) and command.examples:
        yield from (".PP", "Examples:")
        for line, purpose in command.examples:
            yield from (".PP", f"{_escaped(purpose)}:", ".nf", f".RS\n{_escaped(line)}\n.RE", ".fi")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield ".PP"
        yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Text that means itself to roff: no escape, no request, and a dash that can be copied into a shell."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    marked = _CODE.sub(r"\\fB\1\\fR", plain)
    return f"\\&{marked}" if marked[:1] in {".", "'"} else marked
