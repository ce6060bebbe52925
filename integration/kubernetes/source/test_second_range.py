"""A cluster that got a second range of Service addresses, by a ServiceCIDR, is served like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.kubernetes.cluster import KubectlError
from integration.kubernetes.source.site import Site, seconds_until
from userproxy.lab.objects import Port, endpoint, endpoint_slice, service
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.service import Path

if TYPE_CHECKING:
    from userproxy.lab.objects import Object

PORTS = [Port(80, 8080)]
PODS = {"server1", "server2"}
CIDR: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "ServiceCIDR",
    "metadata": {"name": "second"},
    "spec": {"cidrs": ["10.96.0.0/24"]},
}


def answering(site: Site, member: str, ip: str) -> set[str]:
    """Which pods answer a member of the lab at a Service, in eight requests."""
    urls = [f"http://{ip}/"] * 8
    options = ("--silent", "--max-time", "5", "--connect-timeout", "0.3", "--header", "Connection: close")
    said = site.lab.exec(member, "curl", *options, *urls, check=False).stdout
    return {line.split()[0] for line in said.splitlines() if " answers " in line}


@pytest.mark.parametrize("path", Path)
def test_a_service_of_a_second_range_answers_pods_and_the_node(site: Site, path: Path) -> None:
    ip = f"10.96.0.{10 + list(Path).index(path)}"
    name = f"second-{path}"
    made = service(name, [ip], PORTS, metadata={"annotations": {"userproxy.dev/path": path}})
    endpoints = endpoint_slice(name, name, PORTS, [endpoint(SERVER1.ip), endpoint(SERVER2.ip)])
    if path is Path.REDIRECT_TO_HOST:
        with pytest.raises(KubectlError, match="range"):
            site.cluster.apply(made)
    site.cluster.apply(CIDR)
    seconds_until(lambda: is_taken(site, made))
    site.cluster.apply(endpoints)
    for member in ("client", "host1"):
        seconds = seconds_until(lambda member=member: answering(site, member, ip) == PODS)  # type: ignore[misc]
        print(f"{path}: {member} is answered at {ip} within {seconds:.2f} s")
    assert not [entry for entry in site.log() if entry.get("level") == "error"]


def is_taken(site: Site, made: Object) -> bool:
    """Whether the API server, which learns of a range by a watch of its own, takes the Service."""
    try:
        site.cluster.apply(made)
    except KubectlError:
        return False
    return True
