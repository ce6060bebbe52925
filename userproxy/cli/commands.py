"""What all commands have in common: help in sections, with examples, and a guess at what was meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_OTHERS = "Options"


class Option(click.Option):
    """An option that `--help` shows in a section.

    Args:
        section: its heading.
    """

    def __init__(self, *arguments: Any, section: str = _OTHERS, **settings: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*arguments, **settings)
        self.section = section


class Command(click.Command):
    """A command.

    Args:
        examples: each a command line with what it does, in a few words.
    """

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - click's
        examples: Sequence[tuple[str, str]] = (),
        **settings: Any,  # noqa: ANN401 - likewise
    ) -> None:
        super().__init__(*arguments, **settings)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, but nobody is sent to an option that `--help` does not show."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hidden = {name for each in self.params if getattr(each, "hidden", False) for name in each.opts}
            near = [name for name in error.possibilities or () if name not in hidden]
            raise click.NoSuchOption(error.option_name, possibilities=near, ctx=ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, each under its heading; those of no section come last."""
        for heading, records in sections(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples come last."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line, purpose in self.examples:
                    formatter.write_text(f"# {purpose}")
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")  # whole, to be copied


class Group(click.Group):
    """A group of commands that guesses which one was meant."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for one that is not there, ask for a near one.

        Raises:
            UsageError: there is none of that name.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near or args[0].startswith("-"):
                raise
            raise click.UsageError(f"No such command {args[0]!r}: did you mean {near[0]}?", ctx) from None


def sections(command: click.Command, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The options of a command, by heading, each with its help."""
    found: dict[str, list[tuple[str, str]]] = {}
    for option in command.get_params(ctx):
        if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
            found.setdefault(getattr(option, "section", _OTHERS), []).append(record)
    if others := found.pop(_OTHERS, None):
        found[_OTHERS] = others
    return found
