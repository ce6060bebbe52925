"""`userproxy run`: the daemon, in the foreground."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from userproxy import config
from userproxy.app import run as run_daemon
from userproxy.control.daemon import StartError
from userproxy.control.node_lock import NodeLockError
from userproxy.control.stopping import StopError
from userproxy.netfilter import NetfilterError
from userproxy.ops.admin.socket_file import AdminSocketError

_PATH = click.Path(path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Workers(click.ParamType[Any]):
    """A number, or `auto`."""

    name = "workers"

    def convert(self, value: object, _param: click.Parameter | None, _ctx: click.Context | None) -> object:
        """Leave what is no number to the configuration, which says what is wrong with it."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value


def _type_of(setting: config.Setting) -> click.ParamType[Any]:
    """How a flag's text is read."""
    match setting.kinds:
        case (kind,) if kind is Path:
            return _PATH
        case (kind,) if issubclass(kind, enum.StrEnum):
            return click.Choice([value.value for value in kind])
        case (kind,):
            plain: click.ParamType[Any] = click.types.convert_type(kind)
            return plain
    return _Workers()


def _settings(command: _Command) -> _Command:
    """A flag for each setting that is declared."""
    for setting in reversed(config.declared()):
        command = click.option(
            f"--{setting.key}",
            type=_type_of(setting),
            metavar=setting.metavar or None,
            envvar=setting.envvar or None,
            show_envvar=True,
            help=f"{setting.help} [default: {setting.default}]",
        )(command)
    return command


@click.command()
@click.option("--config", "config_file", type=_PATH, help="YAML with these settings; flags win over it.")
@_settings
def run(config_file: Path | None, **flags: Any) -> None:  # noqa: ANN401 - as many types as there are flags
    """Run the daemon, in the foreground.

    SIGTERM stops it: no new connections, then those that live get their time, then every trace is removed.
    SIGHUP has it start anew, with the program and the configuration as they are then, and no client notices.
    """

    def load() -> config.Config:
        return config.load(flags, config_file)

    try:
        if run_daemon(load(), load):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    except config.ConfigError as error:
        raise click.UsageError(str(error)) from None
    except (StartError, StopError, NodeLockError, AdminSocketError, NetfilterError) as error:
        raise click.ClickException(str(error)) from None
