"""Clients who come before their Service does: they are served as soon as it is there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from integration.echo import echo_server
from integration.services import published
from integration.sockets import connecting_from
from userproxy.lab.topology import SERVER1
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

MODES = ("redirect-to-host", "redirect-to-pod", "steered")
NAME, FRONTEND = "late", Address("10.3.243.7", 80)
BACKEND = Address(SERVER1.ip, 7007)


@contextlib.contextmanager
def nowhere(lab: Lab) -> Iterator[None]:
    """The network says nothing of a Service IP that nobody has captured."""
    route = ("blackhole", f"{FRONTEND.ip}/32")
    lab.exec("gateway", "ip", "route", "add", *route)
    try:
        yield
    finally:
        lab.exec("gateway", "ip", "route", "delete", *route)


@pytest.mark.parametrize("member", ["client", "host1"])
def test_a_client_from_before_the_service_is_served_at_its_next_packet(lab: Lab, member: str) -> None:
    with (
        nowhere(lab),
        echo_server(lab.namespace("server1"), ("", BACKEND.port), "server1"),
        connecting_from(lab.namespace(member), FRONTEND) as client,
        published(lab, NAME, FRONTEND.ip, [BACKEND]),
    ):
        assert client.recv(100).startswith(b"server1 ")
