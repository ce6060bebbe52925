"""The author of a Service is told what is wrong with it, by an Event."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from integration.kubernetes.source.site import Site, reference, seconds_until
from integration.sockets import connect, read_all
from userproxy.lab.objects import Port, endpoint, endpoint_slice, service
from userproxy.lab.topology import SERVER1
from userproxy.model.address import Address
from userproxy.sources.kubernetes.events import APART_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

WEB = {"name": "web", "port": 80, "targetPort": 8080}
WEB_TARGET = {"name": "web", "port": 8080}
SCTP, UDP = Port(9, name="a", protocol="SCTP"), Port(53, name="a", protocol="UDP")


def all_events(site: Site) -> Sequence[dict[str, Any]]:
    """Each Event, as the API has it."""
    said = site.cluster.kubectl("get", "events.events.k8s.io", "--namespace=default", "--output=json")
    found: Sequence[dict[str, Any]] = json.loads(said)["items"]
    return found


def events(site: Site) -> list[tuple[str, str, str]]:
    """Service, reason and note of each Event."""
    return sorted((each["regarding"]["name"], each["reason"], each["note"]) for each in all_events(site))


def restart(site: Site) -> None:
    """A daemon as usual, whatever the scenario before it wanted."""
    site.daemon.stop()
    site.start_daemon()


def test_the_author_is_told_once(site: Site) -> None:
    site.daemon.stop()
    site.start_daemon("--port-range", "10400-10401")  # `kubernetes` has one of them
    site.cluster.apply(
        service("carries-sctp", ["10.3.241.20"], [SCTP]),
        service("carries-udp", ["10.3.241.21"], [UDP]),
        service("gets-the-last-port", ["10.3.241.22"], [Port(80)]),
    )
    seconds_until(lambda: "default/gets-the-last-port" in site.served())
    site.cluster.apply(service("gets-none", ["10.3.241.23"], [Port(80)]))
    expected = {
        ("carries-sctp", "ProtocolNotSupported"),
        ("gets-none", "PortRangeExhausted"),
    }
    seconds = seconds_until(lambda: expected <= {(name, reason) for name, reason, _ in events(site)})
    first = events(site)
    print(f"within {seconds:.2f} s:", *first, sep="\n  ")
    described = site.cluster.kubectl("describe", "service", "carries-sctp")
    print(described[described.index("Events:") :])
    assert "port 9/SCTP is not served" in described

    site.daemon.stop()
    site.start_daemon("--port-range", "10400-10401")  # as another node would, it finds the same problems
    seconds_until(lambda: "default/gets-none" in site.served())
    assert events(site) == first


def test_an_sctp_port_is_refused_with_a_warning_and_the_others_work(site: Site) -> None:
    restart(site)
    made, slice_ = reference(ports=[{"name": "a", "port": 9, "protocol": "SCTP"}, WEB])
    site.cluster.apply(made, {**slice_, "ports": [{"name": "a", "port": 9, "protocol": "SCTP"}, WEB_TARGET]})
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    seconds_until(lambda: "server-service" in {name for name, *_ in events(site)})
    (warned,) = [each for each in all_events(site) if each["regarding"]["name"] == "server-service"]
    assert (warned["type"], warned["reason"]) == ("Warning", "ProtocolNotSupported")
    status = json.loads(site.lab.userproxy("host1", "status", "-o", "json"))
    assert [one for one in status["problems"] if "server-service:a: port 9/SCTP is not served" in one]


def test_clients_that_wait_for_a_pod_are_told_of_until_there_is_one(site: Site) -> None:
    restart(site)
    frontend = Address("10.3.241.26", 80)
    held = {"userproxy.dev/no-endpoints": "hold"}
    ports = [Port(80, 8080)]
    site.cluster.apply(service("from-zero", [frontend.ip], ports, metadata={"annotations": held}))
    seconds_until(lambda: "default/from-zero" in site.served())

    def told() -> list[dict[str, Any]]:
        return [each for each in all_events(site) if each["regarding"]["name"] == "from-zero"]

    first = connect(site.lab, "client", frontend)
    seconds = seconds_until(lambda: bool(told()))
    (said,) = told()
    print(f"within {seconds:.2f} s: {said['type']} {said['reason']}: {said['note']}")
    assert (said["type"], said["reason"], said["regarding"]["kind"]) == ("Normal", "NeedPods", "Service")
    first.close()
    time.sleep(APART_SECONDS)
    second = connect(site.lab, "client", frontend)
    seconds_until(lambda: (told()[0].get("series") or {}).get("count") == 2)
    assert len(told()) == 1
    site.cluster.apply(endpoint_slice("from-zero", "from-zero", ports, [endpoint(SERVER1.ip)]))
    second.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = read_all(second)
    assert b"server1 answers" in answer
    assert not site.log("an Event is not written")


def test_without_the_right_to_it_goes_on(site: Site) -> None:
    site.daemon.stop()
    site.daemon.log.write_text("")
    remove = [{"op": "remove", "path": "/rules/2"}]
    site.cluster.kubectl("patch", "clusterrole", "userproxy", "--type=json", "--patch", json.dumps(remove))
    seconds_until(lambda: not site.may("create", "events.events.k8s.io"))
    site.start_daemon()
    site.cluster.apply(service("also-sctp", ["10.3.241.24"], [SCTP]))
    seconds_until(lambda: bool(site.log("no Events are written on Services")))
    site.cluster.apply(service("sctp-too", ["10.3.241.25"], [SCTP]))
    site.cluster.apply(*reference())
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    (entry,) = site.log("no Events are written on Services")
    print(entry["error"])
