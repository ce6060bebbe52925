"""userproxy as a DaemonSet: it is updated on every node, and killed, and no client notices."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.cluster.rig.deployed import Deployed
from integration.cluster.rig.images import Names
from integration.load.load import Load, server
from userproxy.lab.processes import wait_until
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from integration.cluster.rig.rig import Rig

FRONTEND = Address("10.3.240.77", 80)
PORT = 8080
RATE, HELD = 167, 66
"""New connections a second, and long ones, from a pod on each of three nodes."""


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "rollout", "namespace": "default"},
    "spec": {
        "clusterIP": FRONTEND.ip,
        "selector": {"serves": "rollout"},
        "ports": [{"port": FRONTEND.port, "targetPort": PORT}],
    },
}


@pytest.fixture
def deployed(rig: Rig, binaries: Path, tmp_path: Path) -> Iterator[Deployed]:
    """userproxy, a Service with a pod on each of two nodes, and a pod on each node for clients."""
    rig.clear()
    image = Names(binaries).of("e2e-test-images/agnhost")[0]
    pods = [pod(f"server-{node.address.name}", node.address.name, image) for node in rig.nodes[1:]]
    pods += [pod(f"client-{node.address.name}", node.address.name, image) for node in rig.nodes]
    rig.api.apply(*pods, SERVICE)
    with contextlib.ExitStack() as stack:
        stack.callback(rig.api.kubectl, "delete", "service/rollout", *names(pods), "--now")
        running = stack.enter_context(Deployed(rig, tmp_path))
        rig.api.kubectl("wait", *names(pods), "--for=condition=Ready", "--timeout=60s")
        for each in names(pods):
            if "server" in each:
                stack.enter_context(server(inside(rig, each), each, PORT))
        yield running


@pytest.mark.timeout(600)
def test_an_image_update_and_a_killed_daemon_and_no_client_notices(rig: Rig, deployed: Deployed) -> None:
    with contextlib.ExitStack() as stack:
        clients = [inside(rig, f"pod/client-{node.address.name}") for node in rig.nodes]
        loads = [
            stack.enter_context(Load(client, FRONTEND, rate=RATE, held=HELD, transfers=1))
            for client in clients
        ]
        for load in loads:
            load.settle(held=HELD + 1, connections=RATE)
        began = time.monotonic()
        deployed.update()
        deployed.wait()
        seconds = time.monotonic() - began
        for load in loads:
            load.go_on(RATE)
        killed = [deployed.daemon_on(node) for node in rig.nodes]
        assert 0 not in killed
        for daemon in killed:
            os.kill(daemon, signal.SIGKILL)

        def are_replaced() -> bool:
            return not {0, *killed} & {deployed.daemon_on(node) for node in rig.nodes}

        wait_until("others are there", are_replaced, 30.0)
        for load in loads:
            load.go_on(3 * RATE)
        reports = [load.finish() for load in loads]
    print(f"updated on {len(rig.nodes)} nodes in {seconds:.1f} s, then killed on each")
    for node, report in zip(rig.nodes, reports, strict=True):
        print(f"{node.address.name}: {report}")
    assert [(report.failures, report.cuts) for report in reports] == [([], [])] * len(rig.nodes)
    assert deployed.restarts() == 0


def pod(name: str, node: str, image: str) -> dict[str, Any]:
    """One that waits; what runs in it is started from outside."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"serves": "rollout"} if name.startswith("server") else {},
        },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "waits", "image": image, "imagePullPolicy": "Never", "args": ["pause"]}],
        },
    }


def names(pods: Iterable[dict[str, Any]]) -> list[str]:
    return [f"pod/{each['metadata']['name']}" for each in pods]


def inside(rig: Rig, name: str) -> list[str]:
    """The command that runs a program of this machine in the network namespace of a pod."""
    which = "--output=jsonpath={.status.containerStatuses[0].containerID}"
    container = rig.api.kubectl("get", name, which).rpartition("/")[2]
    for cgroup in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            if container in cgroup.read_text():
                return ["nsenter", f"--net={cgroup.parent / 'ns/net'}", "--"]
    raise AssertionError(f"{name} has no process")
