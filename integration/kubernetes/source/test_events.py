"""The author of a Service is told what is wrong with it, by an Event."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from integration.kubernetes.source.site import Site, reference, seconds_until
from userproxy.lab.objects import Port, service

if TYPE_CHECKING:
    from collections.abc import Sequence

SCTP, UDP = Port(9, name="a", protocol="SCTP"), Port(53, name="a", protocol="UDP")


def events(site: Site) -> list[tuple[str, str, str]]:
    """Service, reason and note of each Event."""
    said = site.cluster.kubectl("get", "events.events.k8s.io", "--namespace=default", "--output=json")
    found: Sequence[dict[str, Any]] = json.loads(said)["items"]
    return sorted((each["regarding"]["name"], each["reason"], each["note"]) for each in found)


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
