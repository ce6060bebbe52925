"""The settings as options of a command, with kube-proxy's flags, and a configuration made of them."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from userproxy import config
from userproxy.cli.commands import Option
from userproxy.config import kube_proxy

_THEIRS = "kube_proxy_"
"""Before the names of parameters that are kube-proxy's flags."""


class Chosen(msgspec.Struct, frozen=True):
    """What a command line says of the configuration.

    Attributes:
        file: of `--config`.
        flags: by field of `Settings`, what was given.
        theirs: by name, the flags that kube-proxy has and we do not, each with its text.
    """

    file: Path | None
    flags: Mapping[str, config.Value]
    theirs: Mapping[str, str]

    def load(self) -> config.Config:
        """The configuration.

        Raises:
            ConfigError: something is wrong with it.
        """
        return config.load(self.flags, self.file, self.theirs)

    def read(self) -> config.Reading:
        """The same without the node that it is for."""
        return config.read(self.flags, self.file, self.theirs)


class Mistakes(click.UsageError):
    """The configuration is wrong; each mistake is told in a line of its own."""

    def __init__(self, error: config.ConfigError) -> None:
        super().__init__(str(error))
        self.mistakes = error.mistakes


class _Text(click.ParamType[str]):
    """The text of a setting. The configuration reads it, so that all that is wrong is told at once."""

    def __init__(self, setting: config.Setting) -> None:
        kind = setting.kinds[0]
        self._values = [each.value for each in kind] if issubclass(kind, enum.Enum) else []
        self._is_path = kind is Path
        names = {Path: "PATH", str: "TEXT", int: "INTEGER", float: "FLOAT"}
        self.name = f"[{'|'.join(self._values)}]" if self._values else names.get(kind, "TEXT")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - as click declares it
        """What stands for a value in `--help`."""
        return self.name

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - as click declares it
        param: click.Parameter,  # noqa: ARG002 - likewise
        incomplete: str,
    ) -> list[CompletionItem]:
        """What may be written."""
        if self._is_path:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(value) for value in self._values if value.startswith(incomplete)]


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config`, a flag for each setting, and hidden ones for kube-proxy's; passed as `chosen`."""

    @functools.wraps(command)
    def with_settings(*args: Any, config_file: Path | None, **options: Any) -> Any:  # noqa: ANN401 - the command's own
        context = click.get_current_context()
        flags, theirs = {}, {}
        for setting in config.declared():
            if (text := options.pop(setting.field)) is not None:
                source = context.get_parameter_source(setting.field)
                from_environment = source is ParameterSource.ENVIRONMENT
                origin = f"environment {setting.envvar}" if from_environment else f"--{setting.key}"
                flags[setting.field] = config.Value(text, origin, is_text=True)
        for name in [name for name in options if name.startswith(_THEIRS)]:
            if (text := options.pop(name)) is not None:
                theirs[name.removeprefix(_THEIRS).replace("_", "-")] = text
        return command(*args, chosen=Chosen(config_file, flags, theirs), **options)

    decorated: Callable[..., Any] = with_settings
    for flag, is_switch in _their_flags():
        decorated = click.option(
            *([f"-{flag}"] if len(flag) == 1 else []),
            f"--{flag}",
            f"{_THEIRS}{flag.replace('-', '_')}",
            hidden=True,
            is_flag=False,
            flag_value="true" if is_switch else None,
        )(decorated)
    for setting in reversed(config.declared()):
        decorated = click.option(
            f"--{setting.key}",
            cls=Option,
            section=setting.group,
            type=_Text(setting),
            metavar=setting.metavar or None,
            envvar=setting.envvar or None,
            show_envvar=True,
            help=f"{setting.help} [default: {setting.default}]",
        )(decorated)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="YAML with these settings, or a configuration of kube-proxy; flags win over it.",
    )(decorated)


def _their_flags() -> list[tuple[str, bool]]:
    """The flags that kube-proxy has and we do not, each with whether it may go without a value."""
    known = [(field.flag, field.is_switch) for field in kube_proxy.FIELDS if field.flag]
    return [*known, *((flag, flag in ("cleanup", "init-only")) for flag in kube_proxy.DANGEROUS)]
