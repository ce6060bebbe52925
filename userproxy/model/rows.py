"""What an operator sees: the rows behind `userproxy connections|services|backends|status`.

The fields are an interface that scripts lean on: they may be added to, never renamed.
"""

from __future__ import annotations

import msgspec


class ConnectionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One live connection.

    Attributes:
        id: for `userproxy kill`; unique while the daemon lives. `ct-` is before the kernel's own number of a
            connection that it carries, which is unique while the connection lives.
        protocol: `TCP` or `UDP`.
        service: `ns/name:port`.
        client: the client's address.
        frontend: the original destination, which the client connected to.
        listener: our host port; null on the paths redirect-to-pod and steered.
        source: whom the backend sees: our own address on its leg, or the client (masqueraded if it is the
            pod itself); empty while dialling.
        backend: the pod; empty while dialling.
        state: `connecting`, `greeting`, `waiting`, `established`, `client-finished` or `backend-finished`; of
            UDP `unreplied` or `replied`. On the other paths as conntrack knows it: `connecting`,
            `established`, `half-closed`, `closing`; of UDP `assured` too.
        path: `redirect-to-host`, `redirect-to-pod` or `steered`.
        started_at: RFC 3339, UTC. On the other paths empty, unless the kernel notes it
            (`nf_conntrack_timestamp=1`).
        age_seconds: where `started_at` is empty, what is certain: `idle_seconds`.
        idle_seconds: since the last byte, or on the other paths packet, in either direction.
        bytes_up: from client to backend. On the other paths with IP headers, and null unless the
            kernel counts them (`nf_conntrack_acct=1`).
        bytes_down: from backend to client, likewise.
        unknown: the fields of this row whose figures are not known. Of `age_seconds`, which then holds what
            is certain, the least that it can be; and of `bytes_up` and `bytes_down`, which are null.
    """

    id: str
    protocol: str
    service: str
    client: str
    frontend: str
    listener: str | None
    source: str
    backend: str
    state: str
    path: str
    started_at: str
    age_seconds: float
    idle_seconds: float
    bytes_up: int | None
    bytes_down: int | None
    unknown: tuple[str, ...] = ()


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One Service port, or the entries of it that share a policy; `backends_up` of `backends` may be picked.

    Attributes:
        service: `ns/name:port`.
        protocol: `TCP` or `UDP`.
        path: `redirect-to-host`, `redirect-to-pod` or `steered`.
        frontends: all `ip:port` at which it answers.
        listener: our host port; null on the other paths, unless clients wait there for endpoints.
        backends_up: how many may be picked for a new connection now.
        backends: how many endpoints it has.
        connections: live ones.
        problems: what is wrong with it, a line each, with its remedy.
        policy: `Cluster`, or `Local`: only backends on this node are picked.
        family: `IPv4`, or `IPv6`: that of the frontends and of the backends.
    """

    service: str
    protocol: str
    path: str
    frontends: tuple[str, ...]
    listener: str | None
    backends_up: int
    backends: int
    connections: int
    problems: tuple[str, ...]
    policy: str = "Cluster"
    family: str = "IPv4"


class BackendRow(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of one Service port, with its state, why, and since when.

    Attributes:
        service: `ns/name:port`.
        backend: `ip:port` of the pod.
        node: that it is on, as its EndpointSlice says.
        zone: likewise.
        state: `up`, `down` (not ready, or by checks), `ejected` (by dials), `draining` (by an operator,
            or as it terminates), `unused` (others are nearer, or a policy leaves it out), or `removed` (no
            endpoint any more, but connections live on).
        reason: why it is in that state.
        since: when it came to be so, RFC 3339, UTC.
        latency_ms: of the last dial that was answered; null if there was none.
        connections: live ones.
    """

    service: str
    backend: str
    node: str
    zone: str
    state: str
    reason: str
    since: str
    latency_ms: float | None
    connections: int


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where Services come from, and how far behind it may be.

    Attributes:
        kind: `kubernetes` or `manifests`.
        synced: whether everything has been read at least once.
        stale_seconds: how old its data may be; 0 while what is there is known to be in effect.
        problem: why it cannot be followed now, with what it is about before it; empty if it can.
    """

    kind: str
    synced: bool
    stale_seconds: float
    problem: str = ""


class StatusRow(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon.

    Attributes:
        version: of the program.
        pid: of the control process.
        node: its name.
        mode: the path of Services that choose none.
        uptime_seconds: since it came to the node.
        source: where Services come from, see below.
        services: how many Service ports are served.
        listeners: how many are open.
        connections: live ones.
        problems: of the daemon itself, of its source, then those of Services and files.
        failing: whether one of the first two kinds is among them, so that what is wanted is not applied,
            or not even known. Problems of single objects do not count.
        ruleset: `owned`: nobody else can change our rules. `watched`: what others change is put back, within
            seconds; so it is with kernels before 6.9.
    """

    version: str
    pid: int
    node: str
    mode: str
    uptime_seconds: float
    source: SourceStatus
    services: int
    listeners: int
    connections: int
    problems: tuple[str, ...]
    failing: bool = False
    ruleset: str = "watched"
