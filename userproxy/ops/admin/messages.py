"""The JSON of the admin socket, beside the rows of `userproxy.model.rows`.

Fields are an interface that scripts lean on: they may be added to, never renamed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from userproxy.model.filter import ConnectionFilter, parse_backend, parse_client, parse_service

if TYPE_CHECKING:
    from userproxy.model.address import Address

API = 1
"""In the header `Userproxy-Api` of each answer. It goes up when old and new would misunderstand each other;
not for one more field or resource."""

API_HEADER = "Userproxy-Api"

ROWS = "application/x-ndjson"
"""The type of a list: JSON lines, a row on each."""


LONGEST_DRAIN_SECONDS = 7 * 86400.0
"""Whoever waits longer for connections to end waits for good."""


class KillRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which connections to reset; something has to be named.

    Attributes:
        ids: of the connections, or None: whichever match.
        service: `NAMESPACE/NAME[:PORT]`.
        client: an IP address or a network.
        backend: `IP[:PORT]`.
        state: one of those.

    Raises:
        ValueError: a text is none of these; the message quotes it.
    """

    ids: tuple[str, ...] | None = None
    service: str | None = None
    client: str | None = None
    backend: str | None = None
    state: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.filter

    @property
    def filter(self) -> ConnectionFilter:
        """What connections must have, beside ids and state."""
        return ConnectionFilter(
            service=None if self.service is None else parse_service(self.service),
            client=None if self.client is None else parse_client(self.client),
            backend=None if self.backend is None else parse_backend(self.backend),
        )


class Killed(msgspec.Struct, frozen=True, kw_only=True):
    """What killing came to.

    Attributes:
        killed: how many connections were ended: each side got a reset.
        carried: how many of these the kernel carried; workers relayed the others.
        out_of_reach: how many others were meant, which the kernel carries, and which could not be ended in
            time: an end of theirs did not speak.
        left: their ids.
        problem: why that may be; empty if nothing is known.
    """

    killed: int
    carried: int = 0
    out_of_reach: int = 0
    left: tuple[str, ...] = ()
    problem: str = ""


class DrainRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The pod to drain or to bring back, as `IP[:PORT]`; without a port all of its ports.

    Attributes:
        backend: the pod.
        end_after: seconds until its connections are ended; None: they may go on.
    """

    backend: str
    end_after: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_DRAIN_SECONDS)] | None = None

    def __post_init__(self) -> None:
        _ = self.address

    @property
    def address(self) -> Address:
        """The pod; with `ANY_PORT` all of its ports."""
        return parse_backend(self.backend)


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """What a drain means: for how many backends, and how many connections go on at them."""

    backends: int
    connections: int


class LogLevel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which severity on there are log lines: `debug`, `info`, `warning` or `error`."""

    level: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer whose status is 400 or above."""

    error: str
    remedy: str
