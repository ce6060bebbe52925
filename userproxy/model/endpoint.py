"""An endpoint: one pod's address behind a Service port, with what topology needs to know of it."""

from __future__ import annotations

import msgspec

from userproxy.model.address import Address


class Endpoint(msgspec.Struct, frozen=True, order=True, kw_only=True):
    """One address behind a Service port. Conditions have the API's nil-defaults applied.

    Attributes:
        address: of the pod.
        node: the name of the node it runs on, or empty.
        zone: that node's zone, or empty.
        ready: it takes new connections.
        serving: it would answer, also while it terminates.
        terminating: it is being deleted.
        hint_zones: the zones whose clients should use it (EndpointSlice hints), sorted.
        hint_nodes: the nodes whose clients should use it, sorted.
        drained: an operator has drained it: it gets no new connections.
    """

    address: Address
    node: str = ""
    zone: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    hint_zones: tuple[str, ...] = ()
    hint_nodes: tuple[str, ...] = ()
    drained: bool = False
