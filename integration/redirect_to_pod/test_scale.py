"""Ten thousand Services cost a connection no more than one does, and a change among them is made in no time.

Two labs side by side, one with a single Service and one with 10,000, are asked in turn.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_pod.services import api_objects, in_a_file, manifest, put, tcp
from integration.sockets import inside, listen
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import manifest_name
from userproxy.model.address import Address
from userproxy.netfilter.nftables import NETLINK_NETFILTER
from userproxy.netfilter.wire import read_back
from userproxy.netfilter.wire.netlink import Socket
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Generator

    from userproxy.lab.objects import Object

SERVICES = 10_000
PORT = tcp(80, 7000)
MEASURED = Address("10.3.0.1", 80)
ROUNDS, BATCH = 40, 25
CHANGES = 40
PODS = 3


@pytest.fixture(scope="module")
def one(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """A node with a single Service."""
    with Lab(f"{lab_name}-one", daemons=False) as made:
        made.remove_manifest(manifest_name(made.deployment.services[0]))
        made.start_daemon("host1", "--mode", "redirect-to-pod")
        put(made, "measured", MEASURED.ip, [PORT], ["server2"])
        yield made


@pytest.fixture(scope="module")
def many(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """A node with that Service, and 9,999 others from one file."""
    with Lab(f"{lab_name}-many", daemons=False) as made:
        made.remove_manifest(manifest_name(made.deployment.services[0]))
        others = [item for number in range(1, SERVICES) for item in other(number)]
        made.write_manifest("others.json", in_a_file(others))
        began = time.monotonic()
        made.start_daemon("host1", "--mode", "redirect-to-pod")
        wait_until("all are served", lambda: services(made) == SERVICES - 1, 60.0)
        print(f"\n{SERVICES - 1} Services from one file: served {time.monotonic() - began:.1f} s after start")
        put(made, "measured", MEASURED.ip, [PORT], ["server2"])
        yield made


def other(number: int) -> list[Object]:
    """A Service of three pods that nobody asks, and its EndpointSlice."""
    pods = [f"10.1.{number // 80}.{number % 80 * PODS + each + 1}" for each in range(PODS)]
    return api_objects(f"other-{number}", f"10.3.{number // 250 + 1}.{number % 250 + 1}", [PORT], pods)


def services(lab: Lab) -> int:
    with AdminClient(lab.admin_socket("host1")) as admin:
        return admin.status().services


def connect_seconds(lab: Lab, listener: socket.socket) -> list[float]:
    """How long each of a batch of connections takes to be made."""
    taken = []
    with inside(lab, "client"), contextlib.ExitStack() as stack:
        for _ in range(BATCH):
            client = stack.enter_context(socket.socket())
            began = time.perf_counter()
            client.connect((MEASURED.ip, MEASURED.port))
            taken.append(time.perf_counter() - began)
        for _ in range(BATCH):
            stack.enter_context(listener.accept()[0])
    return taken


def test_the_first_packet_costs_the_same_with_one_service_and_with_ten_thousand(one: Lab, many: Lab) -> None:
    taken: dict[str, list[float]] = {one.name: [], many.name: []}
    with listen(one, "server2", PORT.target) as first, listen(many, "server2", PORT.target) as second:
        for _ in range(ROUNDS):
            for lab, listener in ((one, first), (many, second)):
                taken[lab.name] += connect_seconds(lab, listener)
    single, thousands = (statistics.median(taken[lab.name]) for lab in (one, many))
    print(
        f"connect, p50 of {ROUNDS * BATCH}: {single * 1e6:.0f} us with 1 Service, "
        f"{thousands * 1e6:.0f} us with {SERVICES}: ratio {thousands / single:.2f}"
    )
    assert thousands / single <= 1.1


def test_a_change_among_ten_thousand_services_is_programmed_in_no_time(many: Lab) -> None:
    taken: dict[str, list[float]] = {"a pod added": [], "a Service added": [], "a Service removed": []}
    with inside(many, "host1"):
        kernel = Socket(NETLINK_NETFILTER)
    for number in range(CHANGES):
        pods = ["server2", "10.0.1.99"] if number % 2 else ["server2", "10.0.1.98"]
        text = manifest("measured", MEASURED.ip, [PORT], pods)
        taken["a pod added"].append(seconds_until_programmed(many, kernel, "measured.json", text))
        extra = in_a_file(other(SERVICES))
        taken["a Service added"].append(seconds_until_programmed(many, kernel, "extra.json", extra))
        taken["a Service removed"].append(seconds_until_programmed(many, kernel, "extra.json", ""))
    kernel.close()
    for what, seconds in taken.items():
        worst, middle = max(seconds) * 1000, statistics.median(seconds) * 1000
        print(f"{what}, from the rename to the kernel: p50 {middle:.1f} ms, worst {worst:.1f} ms")


def seconds_until_programmed(lab: Lab, kernel: Socket, name: str, text: str) -> float:
    """From the moment that a manifest changes (or goes) until the kernel has committed a change."""
    before = read_back.generation(kernel)
    whole = lab.manifests / f".{name}.new"
    whole.write_text(text)
    began = time.perf_counter()
    if text:
        whole.replace(lab.manifests / name)
    else:
        (lab.manifests / name).unlink()
    while read_back.generation(kernel) == before:
        time.sleep(0.0002)
        assert time.perf_counter() - began < 10, f"{name}: nothing was changed in the kernel"
    seconds = time.perf_counter() - began
    time.sleep(0.25)  # a quiet time: what is measured is a single change
    return seconds
