"""How long to wait before asking the API server again. Pure.

Where nobody listens, an attempt costs nobody anything: it is repeated often, so that a server that comes
back is noticed at once. A server that answers, but with an error, may have too much to do: the pauses grow to
about half of the time that it has been failing. The two are counted apart: a server that comes and goes is
asked no more often for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST = 0.2
GROWTH = 1.5
MAX_UNREACHABLE = 2.0
MAX_ANSWERED = 30.0


class Backoff:
    """The pauses of one client.

    Args:
        random: evenly from 0 to 1; spreads the clients of a server that failed all of them at once.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = {True: 0, False: 0}

    def succeeded(self) -> None:
        """Begin again with short pauses."""
        self._failures = {True: 0, False: 0}

    def failed(self, *, unreachable: bool = False, retry_after: float = 0.0) -> float:
        """Seconds to wait now.

        Args:
            unreachable: there was no answer at all.
            retry_after: seconds that the server asked for.
        """
        longest = MAX_UNREACHABLE if unreachable else MAX_ANSWERED
        # The exponent has a limit, lest the power overflow after an outage of days.
        seconds = min(longest, FIRST * GROWTH ** min(self._failures[unreachable], 64))
        self._failures[unreachable] += 1
        return max(retry_after, seconds * (0.5 + self._random() / 2))
