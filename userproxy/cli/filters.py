"""Options that choose rows of a list by what stands in them, where no daemon need be asked for fewer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from userproxy.cli import offers
from userproxy.cli.commands import Option
from userproxy.model.filter import is_service, parse_service
from userproxy.model.service import ServicePortName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from userproxy.model.rows import ServiceRow

    Row = TypeVar("Row", bound="Any")

SECTION = "Filters"

BACKEND_STATES = ("up", "draining", "unused", "down", "ejected", "removed")
SERVICE_STATES = ("up", "degraded", "down", "empty")


class Parsed(click.ParamType[Any]):
    """An option whose value a function of `userproxy.model.filter` reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - what it is parsed to
        """Read the option's text; an error of the parser is a usage error."""
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SERVICE = Parsed("service", parse_service)


class Wanted(msgspec.Struct, frozen=True):
    """What a row must have; empty asks for nothing.

    Attributes:
        namespace: of its Service.
        service: its Service, or one port of it.
        state: its state.
    """

    namespace: str = ""
    service: ServicePortName | None = None
    state: str = ""

    def __bool__(self) -> bool:
        return bool(self.namespace or self.service or self.state)

    def of(self, rows: Iterable[Row], state: Callable[[Row], str]) -> Sequence[Row]:
        """Those of the rows that have it.

        Args:
            rows: with a `service`.
            state: tells that of a row.
        """
        return [row for row in rows if self._is_of(row.service) and self.state in ("", state(row))]

    def _is_of(self, text: str) -> bool:
        name = ServicePortName.parse(text)
        return self.namespace in ("", name.namespace) and (
            self.service is None or is_service(self.service, name)
        )


def namespace_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--namespace`, passed as such."""
    return click.option(
        "-n",
        "--namespace",
        cls=Option,
        section=SECTION,
        default="",
        metavar="NAMESPACE",
        shell_complete=offers.from_daemon(offers.namespaces),
        help="Only those of this namespace.",
    )(command)


def service_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--service`, passed as such."""
    return click.option(
        "--service",
        type=SERVICE,
        cls=Option,
        section=SECTION,
        metavar="NS/NAME[:PORT]",
        shell_complete=offers.from_daemon(offers.services),
        help="Only those of this Service.",
    )(command)


def wanted_options(states: Sequence[str], told: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--namespace`, `--service` and `--state`, passed as one `Wanted`, `wanted`.

    Args:
        states: that there are.
        told: what they mean, as the help of `--state`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_wanted(
            *args: Any,  # noqa: ANN401 - the command's own
            namespace: str,
            service: ServicePortName | None,
            state: str | None,
            **options: Any,  # noqa: ANN401 - likewise
        ) -> Any:  # noqa: ANN401 - likewise
            return command(*args, wanted=Wanted(namespace, service, state or ""), **options)

        with_state = click.option(
            "--state", type=click.Choice(states), cls=Option, section=SECTION, help=told
        )(with_wanted)
        return namespace_option(service_option(with_state))

    return decorate


def service_state(row: ServiceRow) -> str:
    """Of `SERVICE_STATES`: whether all of its backends may be picked, some, none, or whether it has none."""
    if not row.backends:
        return "empty"
    if not row.backends_up:
        return "down"
    return "up" if row.backends_up == row.backends else "degraded"
