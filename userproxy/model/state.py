"""The state that the data side and the kernel are in, or should be in."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import Protocol, ServicePortName
from userproxy.model.settings import Settings


class Backend(msgspec.Struct, frozen=True, order=True):
    """A pod that may be picked for a new connection now: topology has been applied."""

    address: Address
    node: str = ""
    zone: str = ""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """The backends of one Service port, and how they are chosen.

    Attributes:
        service: whose traffic it is.
        frontends: the original destinations of that traffic.
        backends: in the order of picking; empty while there are none.
        far: that may take over while most of the backends cannot be reached: those of other zones, where
            hints prefer the near ones.
        leaving: pods that exist and take no new connections, told only if `settings.close_on_removal` asks
            for it: whoever is neither here nor among the others has been removed.
        settings: what the author of the Service chose.
    """

    service: ServicePortName
    frontends: tuple[Address, ...]
    backends: tuple[Backend, ...] = ()
    far: tuple[Backend, ...] = ()
    leaving: tuple[Address, ...] = ()
    settings: Settings = Settings()


class Serve(Pool, frozen=True, kw_only=True):
    """What the data side does for one Service port: accept on its listener, relay to its backends.

    Attributes:
        listener: the host IP and the Service port's host port, `10.100.0.2:10400`.
    """

    listener: Address


class Frontend(msgspec.Struct, frozen=True, order=True, array_like=True, cache_hash=True):
    """The key of a capture: what a packet must be addressed to."""

    protocol: Protocol
    address: Address


class ToListener(msgspec.Struct, frozen=True, tag="to-listener"):
    """Rewrite the destination to our listener."""

    listener: Address


class ToPods(msgspec.Struct, frozen=True, tag="to-pods"):
    """Rewrite the destination to one of these pods, chosen evenly. Never empty."""

    pods: tuple[Address, ...]


class Refuse(msgspec.Struct, frozen=True, tag="refuse"):
    """Refuse at once: TCP RST, or ICMP port unreachable."""


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Drop silently: endpoints exist, but the traffic policy forbids them from here."""


Target = ToListener | ToPods | Refuse | Drop


class NodeState(msgspec.Struct, frozen=True):
    """The state that the data side and the kernel should be in.

    Attributes:
        serves: by Service port: those that have a listener.
        captures: by frontend: every frontend of every Service port that is ours.
        guards: every listener of `serves`, with its protocol; a set, in the form in which changes are found.
        flows: by UDP frontend in `captures`: where its flows may lead. Those that began before may stay with
            pods that serve and get no new ones.
        checked: by Service port: those whose packets netfilter sends to pods that are to be checked.
        owners: by frontend in `captures`: the Service port whose it is.
    """

    serves: Mapping[ServicePortName, Serve] = {}
    captures: Mapping[Frontend, Target] = {}
    guards: Mapping[Frontend, None] = {}
    flows: Mapping[Frontend, tuple[Address, ...]] = {}
    checked: Mapping[ServicePortName, Pool] = {}
    owners: Mapping[Frontend, ServicePortName] = {}
