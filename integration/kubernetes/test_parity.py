"""Files and the API are two sources of one kind: the same objects give the same Services and endpoints."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from integration.kubernetes.source.site import reference
from userproxy.lab.objects import TERMINATING, Port, endpoint, endpoint_slice, service
from userproxy.sources.kubernetes.source import KubernetesSource
from userproxy.sources.manifests import ManifestSource

if TYPE_CHECKING:
    from pathlib import Path

    from integration.kubernetes.cluster import Cluster
    from userproxy.lab.objects import Metadata
    from userproxy.model.snapshot import Snapshot

HTTP = [Port(80, 8080, "http")]
HEADLESS: Metadata = {"labels": {"service.kubernetes.io/headless": ""}}
OTHER_PROXY: Metadata = {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}

OBJECTS = [
    *reference(),
    service("policies", ["10.3.241.3"], HTTP, internalTrafficPolicy="Local"),
    service("headless", ["None"], HTTP),
    service("labelled-headless", ["10.3.241.4"], HTTP, metadata=HEADLESS),
    service("of-another-proxy", ["10.3.241.5"], HTTP, metadata=OTHER_PROXY),
    service("external", type="ExternalName", externalName="example.com"),
    service("udp", ["10.3.241.6"], [Port(53, name="dns", protocol="UDP")]),
    service("sctp", ["10.3.241.7"], [Port(9, name="a", protocol="SCTP")]),
    service("without-endpoints", ["10.3.241.8"], HTTP),
    endpoint_slice(
        "policies-1",
        "policies",
        HTTP,
        [
            endpoint("10.0.1.4", "host1", {}, zone="a", for_zones=["a"]),
            endpoint("10.0.1.5", conditions=TERMINATING),
        ],
    ),
    endpoint_slice(
        "policies-2",
        "policies",
        HTTP,
        [endpoint("10.0.1.5", conditions={"ready": True}), endpoint("10.0.1.6", conditions={})],
    ),
    endpoint_slice("nobodys", "no-such-service", HTTP, [endpoint("10.0.1.7")]),
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
    with_endpoints = {name.service for name, found in of_api.endpoints.items() if found}
    assert with_endpoints == {"server-service", "policies", "no-such-service"}
    assert of_api.services == of_files.services
    assert of_api.endpoints == of_files.endpoints
    assert of_api.problems == of_files.problems
    assert {name.service for name in of_api.services} == {
        *("kubernetes", "server-service", "policies", "udp", "without-endpoints")
    }
