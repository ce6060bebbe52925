"""`userproxy completion` and `userproxy man`: what makes the command at home on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from userproxy import __version__
from userproxy.cli.commands import Command
from userproxy.cli.manual import page

if TYPE_CHECKING:
    from click import Context

PROGRAM = "userproxy"
VARIABLE = "_USERPROXY_COMPLETE"
"""By it the shell asks what may stand at a place; click derives it from the program's name."""


@click.command(
    cls=Command,
    examples=(
        ("userproxy completion bash >/etc/bash_completion.d/userproxy", "for bash (needs bash-completion)"),
        ("userproxy completion zsh >/usr/local/share/zsh/site-functions/_userproxy", "for zsh"),
        ("userproxy completion fish >/etc/fish/completions/userproxy.fish", "for fish"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: Context, /, *, shell: str) -> None:
    """Print a script that lets a shell complete commands, options and their values."""
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this click knows no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())


@click.command(
    cls=Command,
    examples=(
        ("userproxy man >/usr/local/share/man/man8/userproxy.8", "for `man userproxy`"),
        ("userproxy man | man -l -", "to read it at once"),
    ),
)
@click.pass_context
def man(ctx: Context, /) -> None:
    """Print the manual page: every command and option, for `man userproxy`."""
    click.echo(page(ctx.find_root().command, PROGRAM, __version__), nl=False)
