"""Who gets at the admin socket or at an HTTP port, and means harm, does none to Services or operators."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from integration.sockets import connect, inside
from integration.vitals import open_files, resident_bytes
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userproxy.lab.deployment import Lab

PORTS = {"metrics": Address("127.0.0.1", 10249), "healthz": Address("127.0.0.1", 10256)}
DOORS = ("admin", *PORTS)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
MEBI = 1024 * 1024


@pytest.fixture(scope="module")
def daemon_lab(idle_lab: Lab) -> Iterator[Lab]:
    """One daemon for the whole file."""
    for log in idle_lab.logs.glob("host1-daemon.log"):
        log.unlink()
    idle_lab.start_daemon("host1")
    yield idle_lab
    idle_lab.daemon("host1").stop()


@pytest.fixture
def lab(daemon_lab: Lab) -> Iterator[Lab]:
    """What a test does leaves the daemon as it was: in memory, in descriptors, and with a log to read."""
    daemon = daemon_lab.daemon("host1")
    files, memory, logged = open_files(daemon.pid), resident_bytes(daemon.pid), len(daemon.output())
    yield daemon_lab
    at_work(daemon_lab)
    wait_until("descriptors are closed", lambda: open_files(daemon.pid) <= files + 5, 5.0)
    assert resident_bytes(daemon.pid) < memory + 16 * MEBI
    new = daemon.output()[logged:]
    assert "Traceback" not in new
    assert len(new.splitlines()) < 10, new


def at_work(lab: Lab) -> None:
    """Clients are served, and so are operators and probes."""
    connect(lab, "client", SERVER_SERVICE.frontend).close()
    began = time.monotonic()
    assert "problems:    0" in lab.userproxy("host1", "status")
    urls = [f"http://{PORTS['metrics']}/metrics", f"http://{PORTS['healthz']}/healthz"]
    lab.exec("host1", "curl", "-sSf", "-o", "/dev/null", "--max-time", "3", *urls)
    assert time.monotonic() - began < 5


def to(lab: Lab, door: str) -> Callable[[], socket.socket]:
    """Makes connections to the admin socket or to a port."""
    path = str(lab.admin_socket("host1"))

    def open_one() -> socket.socket:
        if door in PORTS:
            return socket.create_connection((PORTS[door].ip, PORTS[door].port), 5)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)  # waits while the backlog is full
        client.settimeout(5)
        return client

    return open_one


def request(lab: Lab, path: str, *options: str) -> str:
    """What curl gets from the admin socket."""
    admin = ("--unix-socket", str(lab.admin_socket("host1")), f"http://localhost{path}")
    return lab.exec("host1", "curl", "-sS", "--max-time", "5", *admin, *options, check=False).stdout


def test_curl_is_a_client_like_our_own_and_the_log_says_who_killed(lab: Lab) -> None:
    with connect(lab, "client", SERVER_SERVICE.frontend) as held:
        where = f"?service=default/{SERVER_SERVICE.name}&state=established"
        wait_until("it is listed", lambda: request(lab, f"/connections{where}").count("\n") == 1, 5.0)
        row = json.loads(request(lab, f"/connections{where}"))
        assert json.loads(request(lab, "/status"))["pid"] == lab.daemon("host1").pid
        send = ("-H", "Content-Type: application/json", "-d", json.dumps({"ids": [row["id"]]}))
        assert json.loads(request(lab, "/connections/kill", *send))["killed"] == 1
        with pytest.raises(ConnectionResetError):
            held.recv(1)
    (line,) = [
        line for line in lab.daemon("host1").output().splitlines() if "operator killed connections" in line
    ]
    assert "command=curl" in ESCAPES.sub("", line)
    assert "uid=0" in ESCAPES.sub("", line)
    print(ESCAPES.sub("", line))


@pytest.mark.parametrize("door", DOORS)
def test_garbage_and_half_requests(lab: Lab, door: str) -> None:
    sent = [b"\0\xff" * 5000, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 9000, b"", b"GET /metr"]
    sent.append(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\nx")
    with inside(lab, "host1"), contextlib.ExitStack() as clients:
        for each in sent * 10:
            client = clients.enter_context(to(lab, door)())
            with contextlib.suppress(ConnectionError):
                client.sendall(each)
        at_work(lab)


@pytest.mark.parametrize("door", DOORS)
def test_a_body_of_a_gigabyte(lab: Lab, door: str) -> None:
    path = "/connections/kill" if door == "admin" else "/metrics"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for how in ("Content-Length: 1000000000", "Transfer-Encoding: chunked"):
        with inside(lab, "host1"), to(lab, door)() as client, contextlib.suppress(ConnectionError):
            client.sendall(f"{head}{how}\r\n\r\n".encode())
            sent = 0
            while sent < 1_000_000_000:
                piece = b"x" * 65536
                client.sendall(piece if "Length" in how else b"10000\r\n" + piece + b"\r\n")
                sent += len(piece)
            pytest.fail("all of it was taken in")
        assert sent < 20_000_000


@pytest.mark.parametrize("door", DOORS)
def test_a_thousand_sockets(lab: Lab, door: str) -> None:
    pid, most = lab.daemon("host1").pid, 0
    before = open_files(pid)
    with inside(lab, "host1"), contextlib.ExitStack() as crowd:
        for number in range(1000):
            crowd.enter_context(to(lab, door)())
            if number % 500 == 499:
                at_work(lab)
                most = max(most, open_files(pid))
        print(f"{door}: {most} open files while 1000 sockets wait, {before} before")
        assert most < before + 150


def test_one_that_asks_without_end_and_reads_nothing(lab: Lab) -> None:
    with inside(lab, "host1"), contextlib.ExitStack() as clients:
        for _ in range(40):
            client = clients.enter_context(to(lab, "admin")())
            client.settimeout(0.01)
            with contextlib.suppress(OSError):
                while True:
                    client.sendall(b"GET /services HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        wait_until("an operator is let in", lambda: "services" in request(lab, "/"), 15.0)


def test_another_user_does_not_get_in(lab: Lab) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    admin = ("--unix-socket", str(lab.admin_socket("host1")), "http://localhost/status")
    assert lab.exec("host1", *nobody, "curl", "-sS", *admin, check=False).returncode == 7


def test_a_page_of_another_origin_gets_no_answer(lab: Lab) -> None:
    for header in ("Origin: http://evil.example", "Host: evil.example", "Sec-Fetch-Site: cross-site"):
        assert set(json.loads(request(lab, "/status", "-H", header))) == {"error", "remedy"}
        for path in ("/", "/statusz"):
            url = f"http://{PORTS['metrics']}{path}"
            refused = lab.exec("host1", "curl", "-sS", "-w", "%{http_code}", "-H", header, url).stdout
            assert refused.endswith("403")
            assert SERVER_SERVICE.name not in refused


def test_the_page_shows_what_is_served(lab: Lab) -> None:
    with connect(lab, "client", SERVER_SERVICE.frontend) as held:
        client = "{}:{}".format(*held.getsockname())
        wait_until("it is listed", lambda: client in request(lab, "/connections"), 5.0)
        shown = lab.exec("host1", "curl", "-sSf", f"http://{PORTS['metrics']}/").stdout
    for text in (f"default/{SERVER_SERVICE.name}", str(SERVER_SERVICE.frontend), client, "No problems."):
        assert text in shown
    said = lab.exec("host1", "curl", "-sSf", f"http://{PORTS['metrics']}/statusz").stdout
    assert "Problems: 0" in said
