"""What a shell may offer in the place of a value: what the daemon has now. It is asked for a second at most.

No value has a colon in it, at which bash takes words apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from userproxy.ops.client import DEFAULT_PATH, AdminClient, AdminError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    Offer = Callable[[AdminClient], Iterable[str]]

_SECONDS = 1.0
_PORT = re.compile(r":[0-9]+$")


def services(daemon: AdminClient) -> Iterable[str]:
    """The Services."""
    return (row.service.partition(":")[0] for row in daemon.services())


def namespaces(daemon: AdminClient) -> Iterable[str]:
    """Their namespaces."""
    return (row.service.partition("/")[0] for row in daemon.services())


def backends(daemon: AdminClient) -> Iterable[str]:
    """The IPs of the backends, of IPv4."""
    return (ip for row in daemon.backends() if ":" not in (ip := _PORT.sub("", row.backend)))


def connections(daemon: AdminClient) -> Iterable[str]:
    """The IDs of the live connections."""
    return (row.id for row in daemon.connections())


def from_daemon(offer: Offer) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What completes a parameter with what the daemon has; nothing if it cannot be asked."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with AdminClient(ctx.params.get("admin_socket") or DEFAULT_PATH, _SECONDS) as daemon:
                found = dict.fromkeys(offer(daemon))
        except AdminError:
            return []
        return [CompletionItem(value) for value in found if value.startswith(incomplete)]

    return complete
