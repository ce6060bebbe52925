"""Files and the API are two sources of one kind: the same objects give the same Services and endpoints."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from integration.kubernetes.source.site import reference
from userproxy.sources.kubernetes.source import KubernetesSource
from userproxy.sources.manifests import ManifestSource

if TYPE_CHECKING:
    from pathlib import Path

    from integration.kubernetes.cluster import Cluster
    from userproxy.model.snapshot import Snapshot

HEADLESS = {"service.kubernetes.io/headless": ""}
OTHER_PROXY = {"service.kubernetes.io/service-proxy-name": "other"}


def service(name: str, labels: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    """A Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"ports": [{"name": "http", "port": 80}]} | spec,
    }


def endpoint_slice(name: str, of: str, *endpoints: dict[str, Any], port: int = 8080) -> dict[str, Any]:
    """An EndpointSlice."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": endpoints,
    }


OBJECTS = [
    *reference(),
    service("policies", clusterIP="10.3.241.3", internalTrafficPolicy="Local"),
    service("headless", clusterIP="None"),
    service("labelled-headless", HEADLESS, clusterIP="10.3.241.4"),
    service("of-another-proxy", OTHER_PROXY, clusterIP="10.3.241.5"),
    service("external", type="ExternalName", externalName="example.com", ports=None),
    service("udp", clusterIP="10.3.241.6", ports=[{"name": "dns", "port": 53, "protocol": "UDP"}]),
    service("sctp", clusterIP="10.3.241.7", ports=[{"name": "a", "port": 9, "protocol": "SCTP"}]),
    service("without-endpoints", clusterIP="10.3.241.8"),
    endpoint_slice(
        "policies-1",
        "policies",
        {"addresses": ["10.0.1.4"], "nodeName": "host1", "zone": "a", "hints": {"forZones": [{"name": "a"}]}},
        {"addresses": ["10.0.1.5"], "conditions": {"ready": False, "serving": True, "terminating": True}},
    ),
    endpoint_slice(
        "policies-2",
        "policies",
        {"addresses": ["10.0.1.5"], "conditions": {"ready": True}},
        {"addresses": ["10.0.1.6"], "conditions": {}},
    ),
    endpoint_slice("nobodys", "no-such-service", {"addresses": ["10.0.1.7"]}),
]


async def first_snapshot(kubeconfig: Path) -> Snapshot:
    """What the API source publishes first."""
    source = KubernetesSource(kubeconfig, node_name="host1")
    found: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(source.run(found.set_result))
        async with asyncio.timeout(20):
            snapshot = await found
        running.cancel()
    return snapshot


async def test_both_sources_give_the_same(cluster: Cluster, tmp_path: Path) -> None:
    cluster.apply(*OBJECTS)
    # As the API server has them: with its defaults, its creation times, and its own Service beside them.
    stored = cluster.kubectl("get", "services,endpointslices", "--all-namespaces", "--output=json")
    (tmp_path / "all.json").write_text(json.dumps(json.loads(stored)))

    of_files = ManifestSource(tmp_path).reload()
    of_api = await first_snapshot(cluster.admin_kubeconfig)

    print(f"{len(of_api.services)} Service ports, {len(of_api.endpoints)} with endpoints")
    assert of_api.services == of_files.services
    assert of_api.endpoints == of_files.endpoints
    assert of_api.problems == of_files.problems
    assert {name.service for name in of_api.services} == {
        *("kubernetes", "server-service", "policies", "udp", "without-endpoints")
    }
