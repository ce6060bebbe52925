"""HTTP through a Service: curl, wrk, and a download that takes a while."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING

from integration.programs import running
from integration.services import published
from integration.vitals import resident_bytes
from userproxy.lab.topology import SERVER2, SERVER_SERVICE
from userproxy.model.address import Address

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.lab.deployment import Lab

URL = f"http://{SERVER_SERVICE.frontend}"
GIGABYTE = 1 << 30


def test_a_body_comes_back_as_it_was_sent(lab: Lab) -> None:
    body = "userproxy\n" * 1_000_000
    echoed = lab.exec("client", "curl", "-sS", "--data-binary", "@-", f"{URL}/echo", stdin=body)
    assert echoed.stdout == body


def test_wrk_sees_no_error(lab: Lab) -> None:
    for header in ("keep-alive", "close"):
        told = lab.exec("client", "wrk", "-t1", "-c64", "-d3s", "-H", f"Connection: {header}", URL).stdout
        rate = re.search(r"Requests/sec: +([\d.]+)", told)
        assert rate, told
        print(f"wrk, 64 connections, Connection: {header}: {float(rate[1]):.0f} requests/s")
        assert float(rate[1]) > 100
        assert "Socket errors" not in told
        assert "Non-2xx" not in told


def test_a_gigabyte_arrives_whole(lab: Lab, tmp_path: Path) -> None:
    """From nginx, which sends it with sendfile: a file whose every megabyte is different."""
    file = tmp_path / "gigabyte"
    with file.open("wb") as out:
        for number in range(GIGABYTE >> 20):
            out.write(number.to_bytes(4, "big") * (1 << 18))
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-2]:  # not /tmp and / themselves
        parent.chmod(0o755)
    wanted = subprocess.run(["b2sum", file], check=True, capture_output=True, text=True).stdout.split()[0]
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; sendfile on; server {{ listen 7100; root {tmp_path}; }} }}\n"
    )
    with (
        running(lab, "nginx", "server2", 7100, "nginx", "-c", str(config)),
        published(lab, "files", "10.3.241.90", [Address(SERVER2.ip, 7100)]) as frontend,
    ):
        daemon = lab.daemon("host1").pid
        memory = resident_bytes(daemon)
        began = time.monotonic()
        command = f"curl -sS http://{frontend}/gigabyte | b2sum"
        got = lab.exec("client", "sh", "-c", command, timeout=60).stdout.split()[0]
        seconds = time.monotonic() - began
        grown = (resident_bytes(daemon) - memory) / 1e6
        print(
            f"1 GiB in {seconds:.1f} s ({GIGABYTE * 8 / seconds / 1e9:.1f} Gbit/s); "
            f"the daemon grew by {grown:.1f} MB"
        )
        assert got == wanted
