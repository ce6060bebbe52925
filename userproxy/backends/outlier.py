"""Passive checks: failures of clients' own dials take a backend out for a while. Pure; times in seconds.

| | |
|---|---|
| ejected | after 3 dials that failed in a row; one that was not answered in time counts twice |
| for | 5 s, and twice as long each time, up to 300 s; a backend that stayed well that long begins anew |
| then | the first new connection is the probe: it brings the backend back, or extends the ejection; where |
| | balancing is bound to the client, the first one of a client that belongs there |
"""

from __future__ import annotations

EJECT_AFTER = 3
TIMEOUT_COUNTS = 2
FIRST_HOLD = 5.0
LONGEST_HOLD = 300.0
PROBE_SECONDS = 2.0
"""A probe that has not ended by then tells nothing (its client may have left): another one may try."""


class Outlier:
    """One backend's record of dials.

    Attributes:
        failures: in a row, a timeout counted twice.
        ejected: whether it is out.
        until: when it may be probed, while it is ejected.
        ejections: how often it has been ejected lately.
        hold: seconds that the last time was, or is, to be.
        recovered: when it came back from that.
    """

    __slots__ = ("_probing", "ejected", "ejections", "failures", "hold", "recovered", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.ejected = False
        self.until = 0.0
        self.ejections = 0
        self.hold = 0.0
        self._probing = False
        self.recovered = 0.0

    def failed(self, now: float, *, timed_out: bool) -> bool:
        """A dial failed.

        Returns:
            Whether the backend should be out: call `eject`, unless there is a reason not to.
        """
        self.failures += TIMEOUT_COUNTS if timed_out else 1
        if self.ejected:
            if self._probing:
                self.eject(now)
            return False  # dials that had begun before tell nothing new
        return self.failures >= EJECT_AFTER

    def eject(self, now: float) -> None:
        """Take it out, or leave it out after a probe that failed."""
        if not self.ejected and self.ejections and now - self.recovered >= self.hold:
            self.ejections = 0
        self.hold = min(FIRST_HOLD * 2**self.ejections, LONGEST_HOLD)
        self.ejections += 1
        self.ejected = True
        self._probing = False
        self.until = now + self.hold

    def succeeded(self, now: float) -> bool:
        """A dial was answered.

        Returns:
            Whether that brought the backend back.
        """
        self.failures = 0
        if not self.ejected:
            return False
        self.ejected = self._probing = False
        self.recovered = now
        return True

    def may_be_probed(self, now: float) -> bool:
        """Whether the next connection is the probe."""
        return self.ejected and now >= self.until

    def begin_probe(self, now: float) -> None:
        """A connection goes there to see; nobody else does meanwhile."""
        self._probing = True
        self.until = now + PROBE_SECONDS
