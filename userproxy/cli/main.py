"""The entry point `userproxy`: imports only the command that is used, and gives every end its exit code."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from userproxy import __version__
from userproxy.cli.commands import Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DONE, USAGE = 0, 2
INTERRUPTED = 128 + signal.SIGINT

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

SECTIONS = {
    "The daemon": ("run", "config", "plan"),
    "Look": ("connections", "top", "who", "services", "backends", "status", "explain"),
    "Act": ("kill", "drain", "log-level", "cleanup"),
    "Try": ("lab", "bench"),
    "Shell": ("completion", "man"),
}
"""By heading in `userproxy --help`, the commands."""

COMMANDS = {
    "run": ("userproxy.cli.run:run", "Run the daemon, in the foreground."),
    "config": ("userproxy.cli.config:config", "Check or show a configuration."),
    "plan": ("userproxy.cli.plan:plan", "Show what would be served, how, and what not. Touches nothing."),
    "connections": ("userproxy.cli.connections:connections", "List the live connections that are proxied."),
    "top": ("userproxy.cli.top.command:top", "Watch the live connections, the busiest first."),
    "who": ("userproxy.cli.records:who", "Tell which client is behind an address that a pod has seen."),
    "services": ("userproxy.cli.inventory:services", "List the Service ports that are served, and where."),
    "backends": ("userproxy.cli.inventory:backends", "List the backends, with their state and why."),
    "status": ("userproxy.cli.inventory:status", "Show the daemon and what is wrong with it."),
    "explain": ("userproxy.cli.explain:explain", "Tell what becomes of a packet to an address, and why."),
    "kill": ("userproxy.cli.operate:kill", "Reset connections."),
    "drain": ("userproxy.cli.operate:drain", "Give a pod no new connections, or undo that."),
    "log-level": (
        "userproxy.cli.operate:log_level",
        "Show or change from which severity on the daemon logs.",
    ),
    "cleanup": ("userproxy.cli.cleanup:cleanup", "Remove every trace from this node's kernel."),
    "lab": ("userproxy.cli.lab:lab", "The reference deployment in network namespaces."),
    "bench": ("userproxy.cli.bench:bench", "Measure every path to a Service, side by side."),
    "completion": ("userproxy.cli.shell:completion", "Print what a shell needs to complete our commands."),
    "man": ("userproxy.cli.shell:man", "Print the manual page."),
}
"""By name: where the command is (`module:attribute`), and its line in `userproxy --help`."""


class LazyGroup(Group):
    """A group whose commands are imported when they are used, and only then."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click declares it
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """List the commands without importing one."""
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])

    def shell_complete(
        self,
        ctx: click.Context,
        incomplete: str,
    ) -> list[CompletionItem]:
        """Complete a command's name without importing one."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        return [CompletionItem(name, help=COMMANDS[name][1]) for name in names]

    def main(  # type: ignore[override]  # click overloads it on a literal standalone_mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,  # noqa: ANN401 - as click declares it
    ) -> Any:  # noqa: ANN401 - likewise
        """Run the command line and exit with its code; without standalone_mode, as click does."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        sys.exit(self._run(args, prog_name, extra))

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click declares it
        """Run the command; a stdout that takes no more ends it."""
        with _stdout_may_end():
            return super().invoke(ctx)

    def _run(self, args: Sequence[str] | None, prog_name: str | None, extra: dict[str, Any]) -> int:
        try:
            outcome = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return USAGE
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "userproxy"
            *others, last = getattr(error, "mistakes", [_one_line(error.format_message())])
            for mistake in (*others, f"{last} (see {command} --help)"):
                click.echo(f"{command}: {mistake}", err=True)
            return USAGE
        except click.ClickException as error:
            click.echo(f"userproxy: {_one_line(error.format_message())}", err=True)
            return error.exit_code
        except click.Abort:
            return INTERRUPTED
        return outcome if isinstance(outcome, int) else DONE


@contextlib.contextmanager
def _stdout_may_end() -> Iterator[None]:
    """End quietly, as done, once nobody reads stdout any more (`| head`), and in one line if it is full."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _has_no_reader(sys.stdout.fileno()):
            raise  # some other pipe, or a socket
        _forget_stdout()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _forget_stdout()
        raise click.ClickException(f"cannot write the output: {error.strerror}: make room") from None


def _forget_stdout() -> None:
    # Python flushes stdout once more at exit, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _has_no_reader(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))  # POLLERR, which needs no asking: see poll(2)


def _one_line(message: str) -> str:
    return " ".join(message.split())


@click.group("userproxy", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="userproxy")
def cli() -> None:
    """A node-level Kubernetes service proxy: redirect to host, with connections you can see."""


def main() -> NoReturn:
    """The console script."""
    cli()
    raise AssertionError  # cli() exits


if __name__ == "__main__":
    main()
