"""The wanted state where listeners cannot be opened: nobody is sent there, and nobody else notices."""

from __future__ import annotations

from userproxy.model.address import Address
from userproxy.model.service import Protocol, ServicePortName
from userproxy.model.state import Backend, Frontend, NodeState, Refuse, Serve, ToListener, ToPods
from userproxy.planner.unopened import without_listeners

POD, VIP = Address("10.0.1.2", 8080), Address("10.3.0.1", 53)
TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
WEB = ServicePortName("default", "dns", "tcp")
OLD, NEW = Address("10.100.0.2", 10400), Address("10.100.0.2", 10401)


def state(listener: Address) -> NodeState:
    """A Service port that is relayed, on an address that another one shares over UDP."""
    serve = Serve(service=WEB, listener=listener, frontends=(VIP,), backends=(Backend(POD),))
    return NodeState(
        serves={WEB: serve},
        captures={TCP: ToListener(listener), UDP: ToPods((POD,))},
        guards={Frontend(Protocol.TCP, listener): None},
    )


def test_its_clients_are_refused_and_the_other_protocol_of_its_address_is_left_alone() -> None:
    possible = without_listeners(state(NEW), NodeState(), [WEB])
    assert possible.serves == {}
    assert possible.captures == {TCP: Refuse(), UDP: ToPods((POD,))}
    assert possible.guards == {}


def test_who_is_served_by_an_earlier_listener_stays_there() -> None:
    possible = without_listeners(state(NEW), state(OLD), [WEB])
    assert possible.serves == state(OLD).serves
    assert possible.captures == state(OLD).captures
    assert possible.guards == state(OLD).guards


def test_while_every_listener_opens_nothing_changes() -> None:
    wanted = state(NEW)
    assert without_listeners(wanted, NodeState(), []) is wanted
    assert without_listeners(wanted, state(NEW), [WEB]) is wanted
