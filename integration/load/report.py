"""What became of a load: each failure with its time, so that a scenario sees how far from an event it was."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

LATE_SECONDS = 1.0
"""An answer that takes longer is a failure, even if it is right."""

Kind = Literal[
    "refused",
    "reset",
    "unreachable",
    "unanswered",  # nobody took the connection
    "silent",  # somebody did, or it is a datagram, and there is no reply
    "delayed",  # right, but after more than LATE_SECONDS
    "truncated",  # an orderly end before the whole reply
    "wrong",
    "no socket",  # the generator's own fault: out of ports or files
]


class Failure(msgspec.Struct, frozen=True):
    """A connection, or a question by UDP, that did not get the right reply in time.

    Attributes:
        what: it was.
        kind: of failure.
        at: when it was begun, by CLOCK_MONOTONIC, which all processes share.
        seconds: it took, without those that the generator was not running.
        port: its own, for whoever looks at packets; 0 if it had none.
    """

    what: Literal["connection", "question"]
    kind: Kind
    at: float
    seconds: float
    port: int = 0


class Cut(msgspec.Struct, frozen=True):
    """A long connection that did not live to its orderly end.

    Attributes:
        what: it did: an exchange now and then, or a continuous transfer.
        kind: `reset`; `fin`, which looks like an end, and is worse; `wrong` bytes; `silent`, if at the end
            something was not answered; else why it could not be opened.
        at: when that was seen, by CLOCK_MONOTONIC.
    """

    what: Literal["exchange", "transfer"]
    kind: Literal["fin"] | Kind
    at: float


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far a load is.

    Attributes:
        connections: that got the right reply in time.
        questions: likewise.
        failed: of both.
        held: long connections that are there.
        replies: of these, with those to transfers in them.
    """

    connections: int
    questions: int
    failed: int
    held: int
    replies: int


class Report(msgspec.Struct, frozen=True, tag=True):
    """All of it.

    Attributes:
        began: the first connection, by CLOCK_MONOTONIC.
        seconds: it went on.
        connections: that got the right reply in time.
        questions: likewise, by UDP.
        servers: how many replies each has given to these.
        failures: the others.
        held: long connections that lived to the end.
        replies: that these got, one after another.
        bytes: that the transfers got back.
        cuts: the other long connections.
        slowest: connection that was no failure, in seconds.
        late: connections begun more than 200 ms after their time: the generator had no processor.
        starved: replies that were late only because the generator had no processor.
        cpu_seconds: that the generator has used.
    """

    began: float
    seconds: float
    connections: int
    questions: int
    servers: dict[str, int]
    failures: list[Failure]
    held: int
    replies: int
    bytes: int
    cuts: list[Cut]
    slowest: float
    late: int
    starved: int
    cpu_seconds: float

    def failed(
        self,
        since: float,
        until: float = float("inf"),
        what: Literal["connection", "question"] = "connection",
    ) -> list[Failure]:
        """The failures among those begun from `since` on, and before `until` (CLOCK_MONOTONIC)."""
        return [each for each in self.failures if each.what == what and since <= each.at < until]

    @property
    def ends(self) -> Counter[str]:
        """How long connections were cut, and how many."""
        return Counter(each.kind for each in self.cuts)

    def __str__(self) -> str:
        tried = self.connections + sum(each.what == "connection" for each in self.failures)
        short = (
            f"{tried} connections in {self.seconds:.1f} s ({tried / max(self.seconds, 0.001):.0f}/s), "
            f"{tried - self.connections} failed, slowest {self.slowest * 1000:.0f} ms"
        )
        long = (
            f"{self.held} of {self.held + len(self.cuts)} long ones lived on "
            f"({self.replies} replies, {self.bytes / 1e6:.0f} MB){told(self.ends)}"
        )
        said = [short, long]
        asked = self.questions + sum(each.what == "question" for each in self.failures)
        if asked:
            said.append(f"{asked} questions by UDP, {asked - self.questions} failed")
        if self.late or self.starved:
            said.append(f"{self.late} begun late and {self.starved} replies late for want of a processor")
        said.append(f"{self.cpu_seconds / max(self.seconds, 0.001):.0%} of a processor")
        return "; ".join(said)


def timeline(failures: Iterable[Failure | Cut], event: float) -> str:
    """How many failures of which kind, and from when to when after the event; `none` without any."""
    kinds: dict[str, list[Failure | Cut]] = {}
    for each in failures:
        kinds.setdefault(each.kind, []).append(each)
    return (
        ", ".join(
            f"{len(some)} {kind} ({min(each.at for each in some) - event:+.2f} s to "
            f"{max(each.at for each in some) - event:+.2f} s)"
            for kind, some in kinds.items()
        )
        or "none"
    )


def told(ends: Counter[str]) -> str:
    """Kinds with their numbers, after a comma; nothing if there are none."""
    return "".join(f", {number} {kind}" for kind, number in ends.items())
