"""What a pod finds in its /etc, and what its name server answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from userproxy.lab.network import LabError
from userproxy.lab.pods import content, etc, nameserver
from userproxy.lab.topology import DNS1, KUBE_DNS, REFERENCE, REFERENCE_WITH_DNS, SERVER1, SERVER_SERVICE

DIRECTORY = Path("/run/userproxy/lab/here")


def read_by_name_servers() -> dict[str, str]:
    return nameserver.files(REFERENCE_WITH_DNS, KUBE_DNS, DIRECTORY / "dns")


def test_a_pod_asks_cluster_dns_as_the_kubelet_would_have_it() -> None:
    assert etc.files(KUBE_DNS, "default")["resolv.conf"].splitlines() == [
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 10.3.240.10",
        "options ndots:5",
    ]


def test_a_pod_asks_nobody_else() -> None:
    assert "hosts: files dns\n" in etc.files(KUBE_DNS, "default")["nsswitch.conf"]


def test_only_programs_in_pods_have_an_etc_of_their_own() -> None:
    in_pod = content.command(REFERENCE_WITH_DNS, "client", DIRECTORY, "curl", "http://server-service")
    assert in_pod[:2] == ["sh", "-c"]
    assert in_pod[3:] == ["/run/userproxy/lab/here/etc", "curl", "http://server-service"]
    assert content.command(REFERENCE_WITH_DNS, "host1", DIRECTORY, "curl") == ["curl"]
    assert content.command(REFERENCE, "client", DIRECTORY, "curl") == ["curl"]


def test_a_machine_without_the_file_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"there is no .*/resolv\.conf .* make one"):
        etc.preflight(tmp_path)
    (tmp_path / "resolv.conf").touch()
    etc.preflight(tmp_path)


def test_every_service_has_its_names() -> None:
    records = read_by_name_servers()["cluster.local.zone"].splitlines()
    assert "server-service.default.svc.cluster.local. A 10.3.241.152" in records
    assert "kube-dns.kube-system.svc.cluster.local. A 10.3.240.10" in records
    assert 'dns-version.cluster.local. TXT "1.1.0"' in records
    dns = "kube-dns.kube-system.svc.cluster.local."
    assert [record for record in records if " SRV " in record] == [
        f"_dns._udp.{dns} SRV 0 100 53 {dns}",
        f"_dns-tcp._tcp.{dns} SRV 0 100 53 {dns}",
    ]
    assert nameserver.domain(SERVER_SERVICE) == "server-service.default.svc.cluster.local"


def test_every_address_has_its_name_in_a_zone_of_whole_octets() -> None:
    records = read_by_name_servers()["3.10.in-addr.arpa.zone"].splitlines()
    assert "152.241.3.10.in-addr.arpa. PTR server-service.default.svc.cluster.local." in records
    assert "10.240.3.10.in-addr.arpa. PTR kube-dns.kube-system.svc.cluster.local." in records


def test_a_name_server_says_who_it_is_and_has_every_zone() -> None:
    files = read_by_name_servers()
    config = files[nameserver.config(DNS1)]
    assert "  ip-address: 10.0.1.4@53\n" in config
    assert '  identity: "dns1"\n' in config
    zones = {name for name in files if name.endswith(".zone")}
    assert {line.split('"')[1] for line in config.splitlines() if "zonefile:" in line} == zones


def test_each_pod_runs_what_it_serves() -> None:
    assert content.server(DNS1, DIRECTORY) == ["nsd", "-d", "-c", "/run/userproxy/lab/here/dns/dns1.conf"]
    assert content.server(SERVER1, DIRECTORY)[1:] == ["-m", "userproxy.lab.pods.webserver", "server1", "8080"]
