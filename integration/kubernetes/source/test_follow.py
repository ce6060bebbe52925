"""What a user does with kubectl is in effect within a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.kubernetes.source.site import URL, Site, reference, seconds_until, with_pods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "default/server-service"
SERVER1, SERVER2 = "10.0.1.2", "10.0.2.2"
SECONDS = 1.0
SLACK_SECONDS = 2.0  # this machine has other things to do


@pytest.fixture(autouse=True)
def _served(site: Site) -> Iterator[None]:
    """Each scenario begins with the reference Service, served."""
    service, endpoints = reference()
    site.cluster.apply(service, endpoints)
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    yield
    site.cluster.kubectl(
        "delete", "service/server-service", "endpointslice/server-service-pods", "--ignore-not-found"
    )
    seconds_until(site.is_silent)


def follows(what: str, holds: Callable[[], bool]) -> None:
    """Check that something comes true in time, and print how long it took after kubectl had returned."""
    seconds = seconds_until(holds)
    print(f"{what}: in effect {seconds:.3f} s after kubectl had returned (wanted: {SECONDS:g})")
    assert seconds < SECONDS + SLACK_SECONDS


def test_apply_then_curl(site: Site) -> None:
    site.cluster.kubectl("delete", "service", "server-service")
    follows("delete", site.is_silent)
    site.cluster.apply(*reference())
    follows("apply", lambda: bool(site.ask()))


def test_scale(site: Site) -> None:
    _, endpoints = reference()
    site.cluster.apply(with_pods(endpoints, SERVER1))
    follows("scale down", lambda: site.answering() == {"server1"})
    site.cluster.apply(with_pods(endpoints, SERVER1, SERVER2))
    follows("scale up", lambda: site.answering() == {"server1", "server2"})
    site.cluster.apply(with_pods(endpoints))
    follows("scale to zero", site.is_silent)


@pytest.mark.parametrize("first", ["service", "endpointslice"])
@pytest.mark.parametrize("again", ["service", "endpointslice"])
def test_delete_and_create_in_any_order(site: Site, first: str, again: str) -> None:
    names = {"service": "server-service", "endpointslice": "server-service-pods"}
    service, endpoints = reference()
    for kind in sorted(names, key=lambda kind: kind != first):
        site.cluster.kubectl("delete", kind, names[kind])
    follows(f"delete, {first} first", site.is_silent)
    objects = {"service": service, "endpointslice": endpoints}
    for kind in sorted(objects, key=lambda kind: kind != again):
        site.cluster.apply(objects[kind])
    follows(f"create, {again} first", lambda: site.answering() == {"server1", "server2"})


def test_a_service_that_comes_back_while_its_slice_stays(site: Site) -> None:
    site.cluster.kubectl("delete", "service", "server-service")
    site.cluster.apply(reference()[0])
    follows("the Service again", lambda: site.answering() == {"server1", "server2"})


def test_change_of_port(site: Site) -> None:
    def asks_on(port: int) -> bool:
        url = f"{URL}:{port}"
        return bool(site.lab.exec("client", "curl", "-sS", "-m0.3", url, check=False).stdout)

    service, _ = reference(ports=[{"protocol": "TCP", "port": 8081, "targetPort": 8080}])
    site.cluster.apply(service)
    follows("change of port", lambda: asks_on(8081) and not asks_on(80))


def test_external_name_and_back(site: Site) -> None:
    patch = '{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null}}'
    site.cluster.kubectl("patch", "service", "server-service", "--patch", patch)
    follows("to ExternalName", site.is_silent)
    back = '{"spec":{"type":"ClusterIP","externalName":null,"clusterIP":"10.3.241.152"}}'
    site.cluster.kubectl("patch", "service", "server-service", "--patch", back)
    follows("and back to ClusterIP", lambda: site.answering() == {"server1", "server2"})


def test_a_service_for_another_proxy_is_left_alone(site: Site) -> None:
    label = "service.kubernetes.io/service-proxy-name"
    site.cluster.kubectl("label", "service", "server-service", f"{label}=other")
    follows("labelled for another proxy", lambda: NAME not in site.served())
    site.cluster.kubectl("label", "service", "server-service", f"{label}-")
    follows("and no longer", lambda: site.answering() == {"server1", "server2"})


def test_what_it_tells_of_itself(site: Site) -> None:
    status, body = site.page("/healthz")
    print(body)
    assert (status, '"nodeEligible":true' in body) == (200, True)
    assert 'stale_seconds":0.0' in body
    assert "userproxy_services" in site.page("/metrics", 10249)[1]
    assert site.page("/proxyMode", 10249) == (200, "redirect-to-host")
    taint = "ToBeDeletedByClusterAutoscaler=1:NoSchedule"
    site.cluster.kubectl("taint", "node", "host1", taint)
    follows("a node about to be deleted is not eligible", lambda: site.page("/healthz")[0] == 503)
    assert site.page("/livez")[0] == 200
    site.cluster.kubectl("taint", "node", "host1", f"{taint}-")
    follows("and is again", lambda: site.page("/healthz")[0] == 200)
