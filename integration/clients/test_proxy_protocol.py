"""Pods learn who their client is: nginx and HAProxy as receivers, and HAProxy as the balancer in front."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from integration.programs import running
from integration.services import published
from userproxy.lab.topology import CLIENT, SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from userproxy.lab.deployment import Lab

NGINX, HAPROXY, FRONT, PLAIN = 7200, 7201, 7202, 7203


@pytest.fixture
def receivers(lab: Lab, tmp_path: Path) -> Iterator[None]:
    """HAProxy and nginx, which answer with the client that they are told of, and HAProxy who sends on."""
    nginx = tmp_path / "nginx.conf"
    nginx.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen {NGINX} proxy_protocol;\n"
        '  location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port\\n"; } } }\n'
    )
    haproxy = tmp_path / "haproxy.cfg"
    haproxy.write_text(
        "defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n"
        f"frontend told\n  bind :{HAPROXY} accept-proxy\n"
        '  http-request return status 200 content-type text/plain lf-string "%ci:%cp\\n"\n'
    )
    front = tmp_path / "front.cfg"
    front.write_text(
        "defaults\n  mode tcp\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n"
        f"listen front\n  bind :{FRONT}\n  server service 10.3.241.97:80 send-proxy-v2\n"
    )
    with contextlib.ExitStack() as programs:
        programs.enter_context(running(lab, "nginx", "server1", NGINX, "nginx", "-c", str(nginx)))
        programs.enter_context(running(lab, "told", "server2", HAPROXY, "haproxy", "-f", str(haproxy)))
        programs.enter_context(running(lab, "front", "client", FRONT, "haproxy", "-f", str(front)))
        yield


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.usefixtures("receivers")
def test_nginx_and_haproxy_see_the_clients_own_address(lab: Lab, version: str) -> None:
    """Also where the first pod refuses, and with checks that speak the protocol too."""
    pods = [Address(SERVER1.ip, NGINX), Address(SERVER2.ip, HAPROXY), Address(SERVER1.ip, PLAIN)]
    with published(
        lab, "told", "10.3.241.96", pods, proxy_protocol=version, health_check="http", health_check_rise="1"
    ) as frontend:
        answers = [
            lab.exec("client", "curl", "-sS", "-w", "%{local_ip}:%{local_port}", f"http://{frontend}/")
            for _ in range(6)
        ]
        for answer in answers:
            seen, own = answer.stdout.splitlines()
            assert seen == own
            assert seen.startswith(f"{CLIENT.ip}:")
        states = {
            row["backend"]: row["state"]
            for row in lab.rows("host1", "backends")
            if row["service"] == "default/told"
        }
        assert states[str(pods[0])] == states[str(pods[1])] == "up"


@pytest.mark.usefixtures("receivers")
def test_a_balancer_in_front_names_the_client(lab: Lab) -> None:
    """The host asks HAProxy in a pod, which asks the Service: nginx learns of the host."""
    with published(
        lab,
        "chain",
        "10.3.241.97",
        [Address(SERVER1.ip, NGINX)],
        proxy_protocol="v1",
        accept_proxy_protocol=f"{CLIENT.ip}/32",
    ) as frontend:
        asked = lab.exec(
            "host1", "curl", "-sS", "-w", "%{local_ip}:%{local_port}", f"http://{CLIENT.ip}:{FRONT}/"
        )
        seen, own = asked.stdout.splitlines()
        assert seen == own
        # Whoever is to begin with a header and does not is reset.
        silent = lab.exec("client", "curl", "-sS", "-m", "3", f"http://{frontend}/", check=False)
        assert silent.returncode == 56
