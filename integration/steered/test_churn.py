"""Pods come and go at 20 a second under 300 new connections a second: each goes to one that is there."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from integration.echo import echo_server
from integration.sockets import PATIENCE_SECONDS, inside
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Collection

    from userproxy.lab.deployment import Lab

SECONDS = 3.4
RATE, CHANGES = 300, 20
GRACE_SECONDS = 1.0
"""Time enough for a manifest to be read, and the kernel to be told."""
AWAY_SECONDS = 1.7
"""So long some of the pods are not among those that come and go."""

PODS = {
    f"{name}-{number}": Address(pod.ip, 7310 + number)
    for name, pod in (("server1", SERVER1), ("server2", SERVER2))
    for number in range(4)
}
LAST = "server2-3"
ANY, STICKY = Address("10.3.241.50", 80), Address("10.3.241.51", 80)


class Client(NamedTuple):
    """A connection.

    Attributes:
        frontend: where to.
        began: when, by CLOCK_MONOTONIC.
        ended: likewise.
        outcome: the pod that answered, or what went wrong.
    """

    frontend: Address
    began: float
    ended: float
    outcome: str


def publish(lab: Lab, pods: Collection[str]) -> None:
    """Two Services with these pods; clients of one of them keep theirs, which is the last one."""
    made = []
    for name, ip, more in (("any", ANY.ip, {}), ("sticky", STICKY.ip, {"sessionAffinity": "ClientIP"})):
        made.append(objects.service(f"churn-{name}", [ip], [Port(80)], **more))  # type: ignore[arg-type]
        for pod in sorted({*pods, LAST} if more else pods):
            ports, endpoint = [Port(80, PODS[pod].port)], objects.endpoint(PODS[pod].ip)
            made.append(objects.endpoint_slice(f"churn-{name}-{pod}", f"churn-{name}", ports, [endpoint]))
    lab.write_manifest("churn.yaml", objects.manifest(made))


def ask(lab: Lab, found: list[Client]) -> None:
    """So many connections a second, for so many seconds; each is over with its answer."""
    with selectors.DefaultSelector() as selector, inside(lab, "client"):
        start = time.monotonic()
        began = 0
        while (now := time.monotonic()) < start + SECONDS + GRACE_SECONDS:
            if now < start + SECONDS and began < (now - start) * RATE:
                began += 1
                frontend = STICKY if began % 2 else ANY
                client = socket.socket()
                client.setblocking(False)  # noqa: FBT003 - as the method has it
                client.connect_ex((frontend.ip, frontend.port))
                selector.register(client, selectors.EVENT_READ, (frontend, now))
                continue
            for key, _ in selector.select(0.002):
                frontend, at = key.data
                found.append(Client(frontend, at, now, _answer(key.fileobj)))  # type: ignore[arg-type]
                selector.unregister(key.fileobj)
            if now > start + SECONDS and not selector.get_map():
                break
        for key in list(selector.get_map().values()):
            frontend, at = key.data
            found.append(Client(frontend, at, now, "no answer"))
            key.fileobj.close()  # type: ignore[union-attr]


def _answer(client: socket.socket) -> str:
    with client:
        try:
            return client.recv(100).decode().partition(" ")[0]
        except OSError as error:
            return str(error)


def churn(lab: Lab, asking: threading.Thread) -> list[tuple[float, frozenset[str]]]:
    """Change the pods while clients ask; returns from when on there were which."""
    chosen = random.Random(7)  # noqa: S311 - the same churn in each run
    history = [(time.monotonic(), frozenset([LAST]))]
    asking.start()
    while (now := time.monotonic()) < history[0][0] + SECONDS:
        away = 2 * int((now - history[0][0]) / AWAY_SECONDS)
        here = [*PODS][:away] + [*PODS][away + 2 :]
        pods = chosen.sample(here, chosen.randint(2, 6))
        publish(lab, pods)
        history.append((time.monotonic(), frozenset(pods)))
        time.sleep(1 / CHANGES)
    asking.join()
    return history


def test_each_is_answered_by_a_pod_that_was_there_a_second_ago_or_by_its_own(lab: Lab) -> None:
    with contextlib.ExitStack() as stack:
        for name, pod in PODS.items():
            namespace = lab.namespace(name.partition("-")[0])
            stack.enter_context(echo_server(namespace, (pod.ip, pod.port), name))
        stack.callback(wait_until, "both are gone", lambda: not _served(lab), PATIENCE_SECONDS)
        stack.callback((lab.manifests / "churn.yaml").unlink)
        publish(lab, [LAST])
        wait_until("both are served", lambda: _served(lab) == {str(ANY), str(STICKY)}, PATIENCE_SECONDS)
        found: list[Client] = []
        history = churn(lab, threading.Thread(target=ask, args=(lab, found)))

    def was_there(client: Client) -> bool:
        """Whether the pod was among those of the second before, or of the time meanwhile."""
        ends = [at for at, _ in history[1:]] + [float("inf")]
        return any(
            client.outcome in pods
            for (at, pods), end in zip(history, ends, strict=True)
            if end >= client.began - GRACE_SECONDS and at <= client.ended
        )

    strays = [each for each in found if not was_there(each) and each.outcome != LAST]
    others = [each for each in found if each.frontend == STICKY and each.outcome != LAST]
    print(
        f"{len(history) - 1} changes, {len(found)} connections, {len(strays)} astray, {len(others)} elsewhere"
    )
    assert len(found) > SECONDS * RATE / 2
    assert strays == others == []


def _served(lab: Lab) -> set[str]:
    """The frontends of both."""
    rows = (row for row in lab.rows("host1", "services") if row["service"].startswith("default/churn"))
    return {frontend for row in rows for frontend in row["frontends"]}
