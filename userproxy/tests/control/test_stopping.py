"""A stop that keeps the rules: new clients go to pods before anybody stops accepting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.config.settings import OnStop
from userproxy.control import stopping
from userproxy.control.stopping import stop
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, Refuse, ToListener, ToPods
from userproxy.netfilter import NetfilterError
from userproxy.tests.control.rig.node import CART, POD1, POD3, ControlSide, config, service, snapshot, tcp

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet")

LISTENER = Address("10.100.0.2", 10400)
OPEN, SHUT, DIRECT = tcp("10.3.0.1:80"), tcp("10.3.0.2:80"), tcp("10.3.0.3:80")
DNS = Frontend(Protocol.UDP, Address("10.3.0.10", 53))
TARGET = ToListener(LISTENER, ToPods((POD1,), masquerade=True))
STATE = NodeState(
    captures={OPEN: TARGET, SHUT: ToListener(LISTENER), DIRECT: ToPods((POD1,)), DNS: TARGET}, workers=1
)
KEEP = config(on_stop=OnStop.KEEP)


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch, side: ControlSide) -> None:
    monkeypatch.setattr(stopping, "ARRIVAL_SECONDS", 0.0)
    side.kernel.captures, side.kernel.workers = dict(STATE.captures), STATE.workers


async def test_clients_go_to_pods_then_accepting_ends_and_the_rules_stay(side: ControlSide) -> None:
    await stop(KEEP, side.sides, STATE)
    assert side.journal == ["refuse 1, open to the pods", "drain for 30 s", "forget 10.100.0.2:10400"]
    assert side.kernel.workers == 0
    assert side.kernel.captures == {**STATE.captures, SHUT: Refuse()}
    assert not side.kernel.is_clean


async def test_where_the_kernel_refuses_workers_say_that_they_leave_and_the_rest_is_done(
    side: ControlSide,
) -> None:
    busy = NetfilterError("Device or resource busy")
    side.kernel.errors = {"apply": busy, "forget_redirected": busy}
    with capture_logs() as lines:
        await stop(KEEP, side.sides, STATE)
    assert side.journal[1:] == ["drain for 30 s", "forget 10.100.0.2:10400 fails"]
    assert [line["log_level"] for line in lines] == ["info", "error", "warning", "info"]


async def test_who_uninstalls_refuses_all_and_leaves_nothing(side: ControlSide) -> None:
    await stop(config(on_stop=OnStop.REMOVE), side.sides, STATE)
    assert side.journal == ["refuse 4", "drain for 30 s", "remove every trace"]
    assert set(side.kernel.captures.values()) == {Refuse()}


async def test_while_it_stops_new_clients_go_to_the_pods_that_there_are(
    tmp_path: Path, sockets: Sockets
) -> None:
    """And are refused where there is none; nothing is opened for them."""
    side = ControlSide(tmp_path, sockets, config(on_stop=OnStop.KEEP, fall_open=True))
    web = tcp("10.3.0.1:80")
    await side.apply(snapshot(service()))
    await stop(side.config, side.sides, side.reconciler.actual)
    side.journal.clear()
    side.reconciler.take(snapshot(service(), service(CART, "10.3.0.2:80"), pods=[POD3]))
    await side.reconciler.follow()
    targets = [side.kernel.captures[key] for key in (web, tcp("10.3.0.2:80"))]
    assert [target.behind and target.behind.pods for target in targets if isinstance(target, ToListener)] == [
        (POD3,),
        (POD3,),
    ]
    side.reconciler.take(snapshot(service(), pods=[]))
    await side.reconciler.follow()
    assert side.kernel.captures == {web: Refuse()}
    assert side.kernel.workers == 0
    assert not [entry for entry in side.journal if entry.startswith(("serve", "close"))]
