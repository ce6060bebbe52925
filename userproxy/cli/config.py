"""`userproxy config check|show`: what a configuration comes to, before a daemon is started with it."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import yaml

from userproxy.cli.commands import Group
from userproxy.cli.daemon import Environment, pass_environment
from userproxy.cli.listing import Listing, Report, listing_options, show
from userproxy.cli.settings import Mistakes, settings_options
from userproxy.cli.tables import Column
from userproxy.config import THIS_NODE, ConfigError, complete, declared, lacks

if TYPE_CHECKING:
    from userproxy.cli.settings import Chosen
    from userproxy.config import Config, Settings


class SettingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as it is in effect; `source` is where its value comes from."""

    setting: str
    value: str | int | float | bool | None
    source: str


COLUMNS: tuple[Column[SettingRow], ...] = (
    Column("SETTING", lambda row: row.setting),
    Column("VALUE", lambda row: _written(row.value), breaks=",/", flexible=True),
    Column("FROM", lambda row: row.source, breaks="/: ", flexible=True),
)


@click.group(cls=Group)
def config() -> None:
    """Check a configuration, or show what it comes to. Nothing is started or changed."""


@config.command(
    examples=(
        ("userproxy config check /etc/userproxy/config.yaml", "before a daemon is started with it"),
        (
            "kubectl get configmap kube-proxy -n kube-system -o yaml | userproxy config check /dev/stdin",
            "what of kube-proxy's configuration means something here",
        ),
    ),
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@settings_options
def check(*, file: Path | None, chosen: Chosen) -> None:
    """Check FILE, flags as those of `userproxy run`, or both.

    Prints everything that is wrong, with its place and what to do, and then ends with exit code 1. What this
    node lacks, an address say, is told and does not count: the file may be for another one.
    """
    chosen = _with_file(chosen, file)
    reading = chosen.read()
    for mistake in reading.mistakes:
        click.echo(str(mistake))
    for warning in reading.warnings:
        click.echo(f"warning: {warning}")
    for lack in lacks(reading.settings, reading.chosen):
        click.echo(f"on this node: {lack}")
    if reading.mistakes:
        count = len(reading.mistakes)
        raise click.ClickException(f"{count} {'mistake' if count == 1 else 'mistakes'} in the configuration")
    count = len(reading.chosen)
    click.echo(f"the configuration is good: {count} {'setting' if count == 1 else 'settings'} chosen")


@config.command(
    "show",
    examples=(
        ("userproxy config show /etc/userproxy/config.yaml", "what that comes to on this node"),
        ("userproxy config show --config config.conf -o yaml >userproxy.yaml", "kube-proxy's file as ours"),
    ),
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@listing_options(SettingRow)
@settings_options
@pass_environment
def show_(environment: Environment, /, *, file: Path | None, listing: Listing, chosen: Chosen) -> None:
    """Show what FILE, flags as those of `userproxy run`, and this node come to, and where each value is from.

    `-o yaml` is a file for --config. Nobody is asked: a daemon that runs tells its own at /configz of
    --metrics-bind-address.
    """
    reading = _with_file(chosen, file).read()
    if reading.mistakes:
        raise Mistakes(ConfigError(*map(str, reading.mistakes)))
    rows = rows_of(complete(reading))
    if listing.output == "yaml":
        click.echo(yaml_text(rows, reading.settings))
    else:
        show(Report(COLUMNS, listing, "no settings"), rows, environment)
    for warning in reading.warnings:
        click.echo(f"warning: {warning}", err=True)


def rows_of(config: Config) -> list[SettingRow]:
    """Each setting with its value in effect."""
    return [
        SettingRow(
            setting=setting.key,
            value=_plain(getattr(config, setting.field)),
            source=config.origins[setting.field],
        )
        for setting in declared()
    ]


def yaml_text(rows: list[SettingRow], settings: Settings) -> str:
    """A file that amounts to the same; what this node says is left to the node that it is used on."""
    lines = []
    for row, setting in zip(rows, declared(), strict=True):
        found_here = row.source == THIS_NODE
        value = row.value if found_here else _plain(getattr(settings, setting.field))
        text = yaml.safe_dump({row.setting: value}, width=math.inf, allow_unicode=True).strip()
        mark = "# " if found_here else ""
        lines.append(f"{mark}{text}  # {row.source}")
    return "\n".join(lines)


def _with_file(chosen: Chosen, file: Path | None) -> Chosen:
    if file and chosen.file:
        raise click.UsageError("name the file once: as FILE, or with --config")
    return msgspec.structs.replace(chosen, file=file or chosen.file)


def _plain(value: object) -> str | int | float | bool | None:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, enum.StrEnum):
        return value.value
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} is no value of a setting")


def _written(value: str | float | bool | None) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value or "")
