"""The load itself, a process in the namespace that it comes from: `python -m integration.load.generator`.

So many connections a second are begun by the clock, whatever becomes of those before them (an open loop),
beside long ones that are there all the time. Every PROGRESS_SECONDS a line of JSON says how far it is; the
last one is the report. It ends with its stdin, or after `--seconds`.
"""

from __future__ import annotations

import argparse
import collections
import gc
import resource
import select
import sys
from typing import Any

import msgspec

from integration.load.clients import Long, Question, Short, Tally, Transfer
from integration.load.loop import STALL_SECONDS, TICK_SECONDS, Loop
from integration.load.report import Progress, Report
from userproxy.model.address import Address

PROGRESS_SECONDS = 0.1
QUESTION_SECONDS = 2.0
_GRACE_SECONDS = 5.0  # for those under way at the end, and for the orderly end of the long ones
_TRANSFER_SECONDS = 0.05
_OPENED_AT_ONCE = 3  # in a tick


class Stream:
    """Short ones of a kind, begun by the clock.

    Attributes:
        late: how many were begun more than STALL_SECONDS after their time.
    """

    def __init__(self, kind: type[Short | Question], rate: float, patience: float) -> None:
        self.late = 0
        self._kind = kind
        self._rate = rate
        self._patience = patience
        self._number = 0
        self._live: collections.deque[Short | Question] = collections.deque()

    def begin_due(self, loop: Loop, tally: Tally, address: tuple[str, int], seconds: float) -> None:
        """Begin those whose time has come, `seconds` after the first one."""
        while self._rate and (overdue := seconds - self._number / self._rate) >= 0:
            self.late += overdue > STALL_SECONDS
            self._number += 1
            self._live.append(self._kind(loop, tally, address, self._number))

    def expire(self, now: float) -> bool:
        """Give up those that have taken too long; whether any are left."""
        while self._live and (self._live[0].over or now - self._live[0].began > self._patience):
            if not (first := self._live.popleft()).over:
                first.give_up()
        return bool(self._live)


class Generator:
    """A load on one address."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._loop = Loop()
        self._tally = Tally(self._loop)
        self._address = (options.address.ip, options.address.port)
        udp = options.udp or options.address
        self._udp = (udp.ip, udp.port)
        self._shorts = Stream(Short, options.rate, options.patience)
        self._questions = Stream(Question, options.questions, QUESTION_SECONDS)
        self._longs: list[Long] = []
        self._exchanges = Turns(options.every / max(1, options.held))
        self._transfers = Turns(_TRANSFER_SECONDS / max(1, options.transfers))
        self._began = self._loop.now
        self._told = 0.0
        self._ending = 0.0
        self._asked_to_end = False

    def run(self) -> Report:
        """Go on until it is to end."""
        self._loop.watch(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLET, self._on_stdin)
        self._loop.run(self._tick)
        used = resource.getrusage(resource.RUSAGE_SELF)
        tally = self._tally
        return Report(
            began=self._began,
            seconds=round(self._ending - self._began, 3),
            connections=tally.good["connection"],
            questions=tally.good["question"],
            servers=dict(tally.servers),
            failures=tally.failures,
            held=len(self._longs) - len(tally.cuts),
            replies=tally.replies,
            bytes=tally.bytes,
            cuts=tally.cuts,
            slowest=round(tally.slowest, 4),
            late=self._shorts.late + self._questions.late,
            starved=tally.starved,
            cpu_seconds=round(used.ru_utime + used.ru_stime, 3),
        )

    def _on_stdin(self, _events: int) -> None:
        self._asked_to_end = True

    def _tick(self) -> bool:
        now = self._loop.now
        if now - self._told > PROGRESS_SECONDS:
            self._told = now
            self._tell()
        if self._ending:
            return self._wait_for_the_last(now)
        seconds = now - self._began
        self._shorts.begin_due(self._loop, self._tally, self._address, seconds)
        self._questions.begin_due(self._loop, self._tally, self._udp, seconds)
        self._shorts.expire(now)
        self._questions.expire(now)
        self._open_some()
        self._exchanges.go_on(now)
        self._transfers.go_on(now)
        if self._asked_to_end or seconds > self._options.seconds:
            self._ending = now
            for each in self._longs:
                each.end()
        return True

    def _open_some(self) -> None:
        """A few more of the long connections, lest their number is a burst of its own."""
        options = self._options
        for _ in range(min(_OPENED_AT_ONCE, options.held + options.transfers - len(self._longs))):
            if len(self._exchanges.longs) < options.held:
                self._longs.append(Long(self._loop, self._tally, self._address))
                self._exchanges.longs.append(self._longs[-1])
            else:
                rate = options.bytes * _TRANSFER_SECONDS
                self._longs.append(Transfer(self._loop, self._tally, self._address, rate))
                self._transfers.longs.append(self._longs[-1])

    def _wait_for_the_last(self, now: float) -> bool:
        left = [self._shorts.expire(now), self._questions.expire(now)]
        longs = [each for each in self._longs if not each.over]
        if now - self._ending > _GRACE_SECONDS:
            for each in longs:
                each.give_up()
            longs = []
        return any(left) or bool(longs)

    def _tell(self) -> None:
        tally = self._tally
        say(
            Progress(
                connections=tally.good["connection"],
                questions=tally.good["question"],
                failed=len(tally.failures),
                held=sum(each.held for each in self._longs),
                replies=tally.replies,
            )
        )


class Turns:
    """Long connections that go on one after the other, evenly over time: one `every` so many seconds.

    Attributes:
        longs: in the order of their turns.
    """

    def __init__(self, every: float) -> None:
        self.longs: list[Long] = []
        self._every = every
        self._next = 0
        self._due = 0.0

    def go_on(self, now: float) -> None:
        """Those whose turn has come; none is made up for that was missed."""
        self._due = max(self._due, now - TICK_SECONDS * 2)
        while self.longs and self._due <= now:
            self._next = (self._next + 1) % len(self.longs)
            self.longs[self._next].go_on()
            self._due += self._every


def say(what: Progress | Report) -> None:
    """One line to whoever has started us."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def main(arguments: list[str]) -> None:
    """Load an address."""
    parser = argparse.ArgumentParser(prog="python -m integration.load.generator")
    options: dict[str, tuple[Any, Any, str]] = {
        "--rate": (float, 500.0, "new connections a second"),
        "--patience": (float, 5.0, "seconds after which one of these has timed out"),
        "--held": (int, 200, "long connections that exchange something now and then"),
        "--every": (float, 2.0, "seconds between two exchanges of one"),
        "--transfers": (int, 4, "long connections that carry bytes all the time"),
        "--bytes": (float, 1e6, "bytes a second of each, both ways"),
        "--questions": (float, 0.0, "questions by UDP a second"),
        "--udp": (Address.parse, None, "where to ask these, if not at ADDRESS"),
        "--seconds": (float, float("inf"), "how long; else until stdin ends"),
    }
    parser.add_argument(
        "address", type=Address.parse, metavar="ADDRESS", help="IP:PORT of integration.load.server"
    )
    for name, (kind, default, text) in options.items():
        parser.add_argument(name, type=kind, default=default, help=text)
    generator = Generator(parser.parse_args(arguments))
    gc.freeze()
    say(generator.run())


if __name__ == "__main__":
    main(sys.argv[1:])
