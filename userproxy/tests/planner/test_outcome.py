"""What the settings of a Service add to what is told to the data side."""

from __future__ import annotations

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import Path, Protocol, ServicePort, ServicePortName
from userproxy.model.settings import Balance, Settings
from userproxy.model.snapshot import Node
from userproxy.planner.outcome import Place, outcome_of

PLACE = Place(Node("here", "zone-a"), "10.100.0.2", Path.REDIRECT_TO_HOST, range(10400, 10500))
READY = Endpoint(address=Address("10.0.1.2", 8080))
LEAVING = Endpoint(address=Address("10.0.1.3", 8080), ready=False, terminating=True)


def served(settings: Settings) -> tuple[Settings, tuple[Address, ...]]:
    service = ServicePort(
        name=ServicePortName("default", "web"),
        protocol=Protocol.TCP,
        frontends=(Address("10.3.0.1", 80),),
        settings=settings,
    )
    serve = outcome_of(service, (READY, LEAVING), 10400, PLACE).serve
    assert serve is not None
    return serve.settings, serve.leaving


def test_settings_reach_the_data_side() -> None:
    chosen = Settings(balance=Balance.RANDOM_TWO)
    assert served(chosen) == (chosen, ())


def test_who_wants_removed_pods_dealt_with_is_told_which_are_only_leaving() -> None:
    assert served(Settings(close_on_removal=5.0))[1] == (LEAVING.address,)
