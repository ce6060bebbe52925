"""Fills a cluster with Services: `python fill.py KUBECONFIG SERVICES ENDPOINTS`, where the API server runs.

Service `many-N` has a cluster IP of its own in 10.8.0.0/13 and one EndpointSlice, `many-N-1`. Nobody is at
its endpoints, which are spread over 10.1.0.0/16 and 10.2.0.0/15.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from userproxy.lab import objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.objects import Object

FIRST_IP = int(ipaddress.IPv4Address("10.8.0.1"))
FIRST_POD = int(ipaddress.IPv4Address("10.1.0.1"))
PARALLEL = 32
PORTS = [objects.Port(80, 8080, "http")]


def service(number: int) -> Object:
    """The Service of a number."""
    return objects.service(f"many-{number}", [str(ipaddress.IPv4Address(FIRST_IP + number))], PORTS)


def endpoint_slice(number: int, count: int) -> Object:
    """Its EndpointSlice, as a controller would write it."""
    name = f"many-{number}"
    endpoints = [
        objects.endpoint(
            str(ipaddress.IPv4Address(FIRST_POD + number * count + index)),
            f"node-{index}",
            zone=f"zone-{index % 3}",
        )
        | {"targetRef": {"kind": "Pod", "namespace": "default", "name": f"{name}-{index}"}}
        for index in range(count)
    ]
    return objects.endpoint_slice(f"{name}-1", name, PORTS, endpoints)


async def main(config: dict[str, Any], authority: Path, services: int, endpoints: int) -> None:
    """Create them all, many at a time.

    Raises:
        aiohttp.ClientResponseError: the API server refused one.
    """
    server = config["clusters"][0]["cluster"]["server"]
    token = config["users"][0]["user"]["token"]
    trust = ssl.create_default_context(cafile=authority)
    paths = {
        "Service": f"{server}/api/v1/namespaces/default/services",
        "EndpointSlice": f"{server}/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    }
    work = _objects(services, endpoints)
    session = aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"},
        connector=aiohttp.TCPConnector(ssl=trust, limit=PARALLEL),
        raise_for_status=True,
    )

    async def create() -> None:
        for each in work:
            async with session.post(paths[each["kind"]], json=each) as response:
                await response.read()

    async with session, asyncio.TaskGroup() as tasks:
        for _ in range(PARALLEL):
            tasks.create_task(create())


def _objects(services: int, endpoints: int) -> Iterator[Object]:
    for number in range(services):
        yield service(number)
        yield endpoint_slice(number, endpoints)


if __name__ == "__main__":
    kubeconfig = Path(sys.argv[1])
    ca_file = kubeconfig.parent / "certificates" / "apiserver.crt"
    asyncio.run(main(json.loads(kubeconfig.read_text()), ca_file, int(sys.argv[2]), int(sys.argv[3])))
