"""What connects the decision to the kernel: packets go in, answers go out."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.backends.checker import Checker
from userproxy.backends.probe import Probe
from userproxy.backends.service import LiveService
from userproxy.dataplane.steered.bounds import HELD_SECONDS
from userproxy.dataplane.steered.decision import Decision
from userproxy.dataplane.steered.port import Port, Token
from userproxy.dataplane.steered.words import Known, Say
from userproxy.model import messages
from userproxy.model.counters import Counters
from userproxy.model.flow_key import frontend_key
from userproxy.model.settings import HealthCheck
from userproxy.model.steering import MARK_BITS, chosen, refused
from userproxy.netfilter.conntrack.single import Conntrack
from userproxy.netfilter.wire.netlink import RefusedError
from userproxy.worker.steering.hearing import Hearing
from userproxy.worker.steering.memory import Memory

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from userproxy.backends.backend import LiveBackend
    from userproxy.model.address import Address
    from userproxy.model.counts import ServiceCount
    from userproxy.model.service import PoolName
    from userproxy.model.state import Steer
    from userproxy.net.poller import Poller
    from userproxy.netfilter.queue.packets import Packet
    from userproxy.netfilter.queue.queue import PacketQueue

log = structlog.get_logger("userproxy.steering")

_TICK_SECONDS = 0.25
_AT_ONCE = 100


class Steerer:
    """Answers for the packets of one queue. Lives as long as its process.

    Args:
        loop: that drives it.
        poller: of its dials and checks.
        queue: with the packets.
        say: tells the control side, if there is one.
        failed: called when the kernel takes no answers: somebody else has to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        queue: PacketQueue,
        say: Callable[[messages.Parts], object],
        failed: Callable[[], object],
    ) -> None:
        self.counters = Counters()
        self.services: dict[PoolName, LiveService] = {}
        self.decision = Decision(self.counters, poller.clock)
        self._loop = loop
        self._poller = poller
        self._queue = queue
        self._say_to_control = say
        self._failed = failed
        self._conntrack = Conntrack()
        self._ports: dict[PoolName, Port] = {}
        self._retired: list[LiveService] = []
        self._checker = Checker(loop, poller, self.services, self.counters)
        self.memory = Memory(loop, self.services, poller.clock, say)
        self._answers: list[bytes] = []
        self._hearing = Hearing(loop, self.decision, self._attend, conntrack=self._conntrack)
        self._timer = loop.call_later(_TICK_SECONDS, self._tick)

    def begin(self) -> None:
        """Answer for packets from now on: the queue is open."""
        self._loop.add_reader(self._queue.fileno(), self._on_packets)

    def steer(self, steers: Iterable[Steer], stops: Iterable[PoolName]) -> None:
        """Choose for these, and no longer for those."""
        for name in stops:
            self._stop(name)
        is_new = False
        for steer in steers:
            port = self._ports.get(steer.name)
            # Those that a frontend has already may be there, and nobody has counted them so far.
            is_new |= port is None or not _frontends(steer) <= _frontends(port.steer)
            if port is None:
                service = LiveService(steer, counters=self.counters)
                service.on_failure = self._checker.hasten
                self.memory.watch(service)
                port = self._ports[steer.name] = Port(service, steer)
                self.services[steer.name] = service
            else:
                self._unlist(port)
                port.update(steer)
            self._list(port)
            self.decision.settle(port)
        if is_new:
            self._hearing.begin()
        self._attend()

    def expect(self, order: messages.Ending) -> None:
        """These connections are about to be ended by the control side."""
        for flow in order.flows:
            known = self.decision.get(flow)
            if known is not None:
                known.reason = order.reason

    def report(self) -> Iterator[list[ServiceCount]]:
        """What is known of each Service port that has been in use.

        Some at a time: of thousands it takes longer than whoever waits in the queue should wait.
        """
        self._retired = [service for service in self._retired if service.connections]
        services = [(service, True) for service in self.services.values()]
        services += [(service, False) for service in self._retired]
        for start in range(0, len(services), _AT_ONCE):
            part = services[start : start + _AT_ONCE]
            counts = [service.report(judged=judged) for service, judged in part]
            yield [count for count in counts if count.connections or count.backends]

    def totals(self, serial: int = 0) -> messages.Totals:
        """The whole of it."""
        services = chain(self.services.values(), self._retired)
        return messages.Totals(
            serial=serial,
            connections=sum(service.connections for service in services),
            waiting=self.decision.held,
            counters=self.counters,
        )

    def give_up(self) -> None:
        """Answer for no more packets; those that are held go on, to whoever the rules choose."""
        if self._queue.is_open:
            self._loop.remove_reader(self._queue.fileno())
            self.decision.let_go()
            self._attend()

    def close(self) -> None:
        """Give everything back to the system."""
        self._timer.cancel()
        self._checker.stop()
        self.memory.close()
        self._hearing.close()
        self._conntrack.close()

    def _list(self, port: Port) -> None:
        for known, key in self._places_of(port):
            known[key] = port

    def _unlist(self, port: Port) -> None:
        for known, key in self._places_of(port):
            if known.get(key) is port:
                del known[key]

    def _places_of(self, port: Port) -> Iterator[tuple[dict[bytes, Port], bytes]]:
        """Where it is listed, by which keys."""
        steer, decision = port.steer, self.decision
        for known, addresses in ((decision.frontends, steer.frontends), (decision.outside, steer.outside)):
            for address in addresses:
                yield known, frontend_key(steer.protocol, address)

    def _stop(self, name: PoolName) -> None:
        port = self._ports.pop(name, None)
        if port is None:
            return
        self._unlist(port)
        self.memory.forget(name)
        del self.services[name]
        if all(each.service_port != name.service_port for each in self._ports):
            self.decision.ledger.forget(name.service_port)
        port.service.retire()
        self._retired.append(port.service)
        self.decision.stop(port)

    def _on_packets(self) -> None:
        for packet in self._queue.read():
            try:
                answer = self._answer(packet)
            except Exception:
                log.exception("nothing could be chosen for a connection")
                answer = self._queue.accept(packet.id, packet.mark)
            self._answers.append(answer)  # to those that have not been sent meanwhile
        self._attend()

    def _answer(self, packet: Packet) -> bytes:
        number, mark, flow, sequence = packet
        if not flow:
            return self._queue.accept(number, mark)
        token = (number, mark)
        said = self.decision.first(flow, sequence, token)
        if said == Say.LOOK:
            self._send()  # or what was chosen just now would not be there yet
            said = self.decision.again(flow, sequence, token, self._look(flow))
        return b"" if said == Say.HELD else self._say(token, said)

    def _say(self, token: Token, said: int) -> bytes:
        number, mark = token
        if said >= 0:
            return self._queue.accept(number, chosen(mark, said))
        if said == Say.REFUSE:
            return self._queue.accept(number, refused(mark))
        if said == Say.DROP:
            return self._queue.drop(number)
        return self._queue.accept(number, mark & ~MARK_BITS)

    def _look(self, flow: bytes) -> Known:
        """What conntrack knows of a connection; it forgets one without an answer, so that it begins anew."""
        try:
            found = self._conntrack.find(flow)
            if found is None:
                return Known.NOTHING
            if found.over:
                return Known.OVER
            if found.answered:
                return Known.LIVE
            self._conntrack.forget(flow)
        except (OSError, RefusedError) as error:
            log.warning("conntrack cannot be asked about a connection", error=str(error))
            return Known.LIVE
        return Known.UNANSWERED

    def _attend(self) -> None:
        """Do what the decision asks for, and send what there is to say."""
        decision = self.decision
        while decision.to_dial or decision.settled:
            dials, decision.to_dial = decision.to_dial, []
            for port, live in dials:
                self._dial(port, live)
            settled, decision.settled = decision.settled, []
            self._answers += [self._say(token, said) for token, said in settled]
        told, decision.to_tell = decision.to_tell, []
        for port in told:
            self._say_to_control(messages.NeedPods(pool=port.service.pool.name))
        self._send()

    def _send(self) -> None:
        answers, self._answers = self._answers, []
        try:
            self._queue.answer(answers)
        except OSError as error:
            log.critical("the kernel takes no answers for packets", error=str(error))
            self._failed()

    def _dial(self, port: Port, live: LiveBackend) -> None:
        """See how a backend is, while packets wait for that."""

        def done(probe: Probe, _failure: str | None) -> None:
            self.decision.dialled(port, live, probe.error, self._poller.clock() - probe.began)
            self._loop.call_soon(self._attend)

        check = msgspec.structs.replace(
            port.service.pool.settings.check, kind=HealthCheck.TCP, timeout=HELD_SECONDS
        )
        probe = Probe(self._poller, live, check, done, lambda _: timer.cancel())
        timer = self._loop.call_later(HELD_SECONDS, probe.expire)
        probe.start()

    def _tick(self) -> None:
        self.decision.expire()
        self._attend()
        self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)


def _frontends(steer: Steer) -> frozenset[Address]:
    return frozenset((*steer.frontends, *steer.outside))
