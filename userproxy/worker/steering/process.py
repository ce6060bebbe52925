"""A steering process, and the orders it takes.

Runs as `python -m userproxy.worker.steering.process FD PREFIX`, with the connection to its control side and
the prefix of the name of its rendezvous socket. It needs CAP_NET_ADMIN, and keeps nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import msgspec
import structlog
import uvloop

from userproxy.dataplane.access_log import OFF, AccessLog
from userproxy.dataplane.recorder import Recorder
from userproxy.logs import configure_logging, set_level
from userproxy.model import messages
from userproxy.model.records import row_of
from userproxy.net.poller import Poller
from userproxy.netfilter.queue.queue import PacketQueue
from userproxy.worker import privileges, rendezvous
from userproxy.worker.channel import Channel
from userproxy.worker.steering.steerer import Steerer

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger("userproxy.steering")

_ORDERS = msgspec.msgpack.Decoder(messages.Orders)
_ENCODER = msgspec.msgpack.Encoder()
_HAND_OVER_SECONDS = 3.0
"""What the control side may take to read all records."""


class SteeringProcess:
    """Answers a queue, as its control side says, if there is one.

    Lives until it has been told to go, or has had no control side for too long.

    Args:
        prefix: of the name of its rendezvous socket.
    """

    def __init__(self, prefix: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._channel: Channel | None = None
        self._next: socket.socket | None = None
        self._steerer: Steerer | None = None
        self._queue: PacketQueue | None = None
        self._recorder = Recorder(0)
        self._poller = Poller()
        self._poller.attach(self._loop)
        self._orphan_seconds: float | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._owner = os.geteuid()  # before this process becomes another user's
        self._rendezvous = rendezvous.listen(prefix)
        self._loop.add_reader(self._rendezvous.fileno(), self._on_visitor)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._loop.add_signal_handler(number, self._over.set)

    async def work(self) -> None:
        """Return when it is over."""
        await self._over.wait()
        self._give_up()
        self._leave_records()
        self._recorder.stop()
        if self._queue is not None:
            self._queue.close()
        self._rendezvous.close()
        if self._channel is not None:
            await self._channel.flush(_HAND_OVER_SECONDS)
            self._channel.close()
        self._poller.shut()

    def attend(self, sock: socket.socket) -> None:
        """Take orders from the control side at the other end."""
        if self._alone is not None:
            self._alone.cancel()
        self._channel = Channel(sock, self._loop, self._on_message, self._on_control_gone)
        self._say(messages.Hello(pid=os.getpid(), holds=0))

    def _on_visitor(self) -> None:
        try:
            visitor, _ = self._rendezvous.accept()
        except OSError:  # out of file descriptors, or the visitor is gone
            return
        if not rendezvous.is_ours(visitor, self._owner):
            visitor.close()
        elif self._channel is None:
            self.attend(visitor)
        else:  # that the one before it is gone may be an event that this loop has yet to come to
            if self._next is not None:
                self._next.close()
            self._next = visitor

    def _on_control_gone(self) -> None:
        self._channel = None
        if self._next is not None:
            visitor, self._next = self._next, None
            self.attend(visitor)
        elif self._steerer is None or not self._steerer.services:
            self._over.set()
        elif self._orphan_seconds is not None:
            self._alone = self._loop.call_later(self._orphan_seconds, self._over.set)

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        try:
            order = _ORDERS.decode(message)
        except msgspec.DecodeError as error:  # another version's
            log.error("an order cannot be understood", error=str(error))  # noqa: TRY400
            _close_all(fds)
            return
        failed = ""
        try:
            if self._execute(order, fds):
                return
        except Exception as failure:
            log.exception("an order could not be applied", order=type(order).__name__)
            failed = f"{type(order).__name__}: {failure!r}"
        self._say(messages.Done(serial=order.serial, error=failed))

    def _execute(self, order: messages.Orders, fds: list[int]) -> bool:
        """Carry out an order; returns whether that goes on."""
        steerer = self._steerer
        match order:
            case messages.BeginSteering():
                self._begin(order)
            case messages.SteerPools() if steerer is not None:
                steerer.steer(order.steers, order.stops)
            case messages.Count() if steerer is not None:
                self._count(steerer, order.serial)
                return True
            case messages.LearnPins() | messages.LearnJudgements() | messages.ListPins():
                self._exchange(order)
            case messages.ReadQueue() if steerer is not None:
                self._read_queue(steerer, fds)
            case messages.YieldQueue():
                self._yield_queue(order.serial)
            case messages.ListRecords():
                self._list_records(order)
                return True
            case messages.KeepRecords() | messages.LogTo() | messages.SetLogLevel() | messages.Ending():
                self._take_in(order, fds)
            case messages.Retire() | messages.Drain():
                self._leave_records()  # before it is said that this is done
                self._loop.call_soon(self._over.set)
            case _:
                _close_all(fds)
        return False

    def _take_in(
        self,
        order: messages.KeepRecords | messages.LogTo | messages.SetLogLevel | messages.Ending,
        fds: Sequence[int],
    ) -> None:
        match order:
            case messages.KeepRecords():
                self._recorder.inherit(order.records)
            case messages.LogTo():
                self._recorder.log_to(fds[0])
            case messages.SetLogLevel():
                set_level(order.level)
            case messages.Ending() if self._steerer is not None:
                self._steerer.expect(order)

    def _write_down(self, order: messages.BeginSteering, steerer: Steerer) -> None:
        """Have connections that are over remembered, and logged."""
        recorder = self._recorder = Recorder(order.recorded)
        if order.access_log != OFF:
            recorder.log = AccessLog(
                order.access_log, order.access_log_file, order.log_format, self._loop, steerer.counters
            )
        ledger = steerer.decision.ledger
        ledger.name, ledger.by_service = os.getpid(), order.by_service
        ledger.is_open = False  # another process may still write them down
        if order.recorded or recorder.log is not None:
            ledger.keep = recorder.keep

    def _leave_records(self) -> None:
        """Give what is remembered to the control side, for another process to keep."""
        if self._channel is not None:
            for records in self._recorder.take():
                self._say(messages.Records(records=tuple(records)))

    def _list_records(self, order: messages.ListRecords) -> None:
        """Tell of connections that are over, some at a time: who waits in the queue has a turn in between."""
        found = self._recorder.matching(order.wanted) if order.wanted.ended else iter(())

        def go_on() -> None:
            records = next(found, None)
            if records is None:
                self._say(messages.Done(serial=order.serial))
                return
            if records:
                self._say(messages.RecordListing(serial=order.serial, rows=tuple(map(row_of, records))))
            self._loop.call_soon(go_on)

        go_on()

    def _count(self, steerer: Steerer, serial: int) -> None:
        """Tell what is known of Service ports, in the same manner."""
        found = steerer.report()

        def go_on() -> None:
            counts = next(found, None)
            if counts is None:
                self._say(steerer.totals(serial))
                self._say(messages.Done(serial=serial))
                return
            if counts:
                self._say(messages.ServiceCounts(serial=serial, services=tuple(counts)))
            self._loop.call_soon(go_on)

        go_on()

    def _exchange(self, order: messages.LearnPins | messages.LearnJudgements | messages.ListPins) -> None:
        if self._steerer is None:
            return
        if isinstance(order, messages.ListPins):
            self._steerer.memory.tell_all(order.serial)
        else:
            self._steerer.memory.learn(order)

    def _begin(self, order: messages.BeginSteering) -> None:
        self._orphan_seconds = order.orphan_seconds
        configure_logging(order.log_format, order.log_level)
        privileges.give_up_all_or_end(privileges.STEERING)
        self._queue = PacketQueue(order.queue)
        self._steerer = Steerer(self._loop, self._poller, self._queue, self._say, self._over.set)
        self._write_down(order, self._steerer)
        # What lives now lives as long as the process: the garbage collector need not look at it again.
        gc.collect()
        gc.freeze()

    def _read_queue(self, steerer: Steerer, fds: Sequence[int]) -> None:
        if self._queue is None:  # given up
            _close_all(fds)
        else:
            self._queue.open(socket.socket(fileno=fds[0]) if fds else None)
            steerer.begin()
            steerer.decision.ledger.is_open = True

    def _yield_queue(self, serial: int) -> None:
        self._give_up()
        queue, self._queue = self._queue, None
        if queue is not None and queue.is_open:
            if self._steerer is not None:
                self._steerer.memory.tell_last(serial)
            self._say(messages.Queue(serial=serial), [queue.fileno()])
            self._loop.call_soon(queue.close)

    def _give_up(self) -> None:
        if self._steerer is not None and self._queue is not None:
            self._steerer.give_up()
            self._steerer.close()

    def _say(self, part: messages.Parts, fds: Sequence[int] = ()) -> None:
        if self._channel is not None:
            self._channel.send(_ENCODER.encode(part), fds)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


async def _main(fd: int, prefix: str) -> None:
    process = SteeringProcess(prefix)
    process.attend(socket.socket(fileno=fd))
    await process.work()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the control side, which then tells us
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2]))
