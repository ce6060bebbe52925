"""Bytes add up, whoever asks when: none is lost or counted twice, and no total runs back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from userproxy.dataplane.traffic import Traffic
from userproxy.model.counters import Counters
from userproxy.model.endings import Reason
from userproxy.model.service import ServicePortName

if TYPE_CHECKING:
    from userproxy.dataplane.connections import Relayed

WEB = ServicePortName("default", "web", "http")


def connection(number: int, up: int = 0, down: int = 0, reason: Reason | None = None) -> Relayed:
    service = SimpleNamespace(pool=SimpleNamespace(service=WEB))
    found = SimpleNamespace(number=number, bytes_up=up, bytes_down=down, reason=reason, service=service)
    return cast("Relayed", found)


def carry(one: Relayed, up: int, down: int, reason: Reason | None = None) -> None:
    vars(one).update(bytes_up=one.bytes_up + up, bytes_down=one.bytes_down + down, reason=reason)


def asked(traffic: Traffic, *live: Relayed) -> None:
    for _ in traffic.add_up(live):
        pass


def test_what_lives_is_counted_when_somebody_asks_and_the_rest_when_it_ends() -> None:
    counters = Counters()
    traffic, one = Traffic(counters), connection(1, 100, 1000)
    asked(traffic, one)
    assert counters.relayed_bytes == {"up": 100, "down": 1000}
    carry(one, 1, 2)
    asked(traffic, one)
    carry(one, 10, 20, Reason.CLIENT_FIN)
    traffic.ended(one)
    assert counters.relayed_bytes == {"up": 111, "down": 1022}


def test_what_ends_while_somebody_asks_is_counted_once() -> None:
    counters = Counters()
    traffic = Traffic(counters)
    many = [connection(number, 1, 1) for number in range(250)]
    for _ in traffic.add_up(many):
        for one in (many[0], many[-1]):
            if one.reason is None:
                carry(one, 0, 0, Reason.KILLED)
                traffic.ended(one)
    assert counters.relayed_bytes == {"up": 250, "down": 250}


def test_what_another_worker_has_counted_is_not_counted_again() -> None:
    """A session that was handed over: the worker that had it has counted what it carried until then."""
    counters = Counters()
    traffic, session = Traffic(counters), connection(1, 100, 1000)
    traffic.inherited(session)
    carry(session, 5, 6)
    asked(traffic, session)
    carry(session, 1, 1, Reason.IDLE)
    traffic.ended(session)
    assert counters.relayed_bytes == {"up": 6, "down": 7}


def test_single_services_are_counted_if_wanted_and_forgotten_with_the_service() -> None:
    counters = Counters()
    traffic = Traffic(counters)
    traffic.began(connection(1))
    assert not counters.service_connections_opened
    traffic.by_service = True
    for number, reason in enumerate((Reason.CLIENT_FIN, Reason.BACKEND_RESET)):
        traffic.began(connection(number))
        traffic.ended(connection(number, 1, 2, reason))
    assert counters.service_connections_opened == {"default/web:http": 2}
    assert counters.service_failed_connections == {"default/web:http": 1}
    assert counters.service_relayed_bytes == {"default/web:http up": 2, "default/web:http down": 4}
    traffic.forget(WEB)
    assert not counters.service_connections_opened | counters.service_failed_connections
    assert not counters.service_relayed_bytes
