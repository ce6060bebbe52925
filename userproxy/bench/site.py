"""Where one path is measured: a lab of its own, the twin of every other path's.

Rules cost every packet that passes their hooks, and two proxies in one network namespace would pay for each
other's. So each path has its own host, client and pods, wired alike and with the same addresses; nothing but
the path differs. All labs are up during the whole run, and only one of them has traffic at a time.

Of conntrack's events that does not hold: as soon as somebody hears them in one namespace, the kernel makes
them in all others too (`netlink_has_listeners` in net/netlink/af_netlink.c), which costs every new connection
some 8 % of its time. So they are off wherever the path itself does not hear them.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from pyroute2 import Conntrack, netns

from userproxy.bench.services import (
    BULK_PORT,
    CLIENT,
    DNS_PORT,
    ECHO_PORT,
    HOST,
    HTTP_PORT,
    SERVER1,
    SERVER2,
    TWIN,
    name_servers,
    named,
)
from userproxy.lab.deployment import Lab
from userproxy.lab.network import LabError
from userproxy.lab.pods import nameserver
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from userproxy.lab.processes import Process
    from userproxy.model.address import Address

_START_SECONDS = 15.0
_TRIED = 200
_SEED = 1
_PODS = (SERVER1.name, SERVER2.name)

_SYSCTLS = (
    "net.core.somaxconn=16384",
    "net.ipv4.tcp_max_syn_backlog=16384",
    "net.ipv4.tcp_tw_reuse=1",
)
_NO_EVENTS = "net.netfilter.nf_conntrack_events=0"
# The host's range leaves room for the listeners of many Services.
_PORTS = {
    CLIENT.name: "net.ipv4.ip_local_port_range=10000 65000",
    HOST.name: "net.ipv4.ip_local_port_range=19000 65000",
}


def pod_server(directory: str) -> str:
    """The configuration of the pods' nginx: one process, one small answer, nothing logged."""
    return f"""\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; multi_accept on; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {HTTP_PORT} backlog=16384;
        location / {{ return 200 "ok\\n"; }}
    }}
}}
stream {{ server {{ listen {ECHO_PORT} udp; return "ok"; }} }}
"""


class Exchange(msgspec.Struct, frozen=True):
    """What our own client has counted of datagrams.

    Attributes:
        answers: that came.
        lost: that did not come in time.
        seconds: that it took.
        p50: seconds from a datagram to its answer, as is `p99`.
    """

    answers: int
    lost: int
    seconds: float
    p50: float
    p99: float


class Site:
    """A path's lab, with servers in its pods: up from `up` to `down`.

    Args:
        name: of the lab.

    Attributes:
        lab: the lab itself.
    """

    def __init__(self, name: str) -> None:
        self.lab = Lab(name, daemons=False, deployment=TWIN)
        self._ours = False

    def up(self, *, hears: bool = False) -> None:
        """Bring the lab up, and start the servers in its pods.

        Args:
            hears: whether the path's own program hears what conntrack tells on its host.

        Raises:
            LabError: one of this name is up already, or something does not start.
        """
        self._ours = True
        try:
            self.lab.up()
        except LabError:
            self._ours = False  # it is somebody else's, or has taken itself down
            raise
        self._tune(hears=hears)
        self._start_servers()

    def down(self) -> None:
        """Take the lab down, if it was this object that brought it up. Idempotent."""
        if self._ours:
            self.lab.down()
            self._ours = False

    def write(self, name: str, text: str) -> str:
        """Put a file into the lab's directory; returns its path."""
        file = self.lab.directory / name
        file.write_text(text)
        return str(file)

    def start(self, name: str, *argv: str) -> Process:
        """Start a program on the host.

        Raises:
            LabError: it cannot be started.
        """
        return self.lab.start(name, HOST.name, *argv)

    def flush(self) -> None:
        """Forget every tracked connection in all of the lab's namespaces."""
        # A thread, because the namespace is the thread's, and this one ends.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_flush, self.lab.namespaces).result()

    def ask(self, *argv: str, timeout: float = 60.0) -> str:
        """The stdout of a program in the client's namespace.

        Raises:
            LabError: it failed, or was not done in time.
        """
        return self.lab.exec(CLIENT.name, *argv, timeout=timeout).stdout

    def answers(self, count: int, addresses: Sequence[Address], timeout: float = 60.0) -> list[float]:
        """The seconds to the first byte of an answer, of `count` new connections.

        Raises:
            LabError: an answer did not come.
        """
        found = self._told(_client("answers", count, *addresses), timeout)
        return [float(each) for each in json.loads(found)]

    def exchange(self, seconds: int, address: Address) -> Exchange:
        """What a client gets that sends datagrams from many sockets, each when the last one is answered.

        Raises:
            LabError: nothing is answered.
        """
        found = self._told(_client("datagrams", seconds, address), seconds + 30.0)
        return msgspec.json.decode(found, type=Exchange)

    def await_services(self, addresses: Sequence[Address], patience: float = _START_SECONDS) -> None:
        """Wait until the addresses take connections, and the last one answers.

        Of many, only a part is tried, at random: rules are written in a few transactions.

        Raises:
            LabError: that is not so within `patience` seconds.
        """
        some = random.Random(_SEED).sample(addresses, min(_TRIED, len(addresses)))  # noqa: S311 - no secret
        tried = [*some, addresses[-1]]
        try:
            self._told(_client("until", patience, *tried), patience + 10)
            self.answers(1, addresses[-1:])
        except LabError as error:
            count = f"{len(addresses)} addresses do" if len(addresses) > 1 else f"{addresses[0]} does"
            raise LabError(f"{count} not work after {patience:g} s: {error}") from None

    @contextlib.contextmanager
    def watching(self, address: Address, patience: float) -> Generator[Watch]:
        """Within it, a client tries to connect all the time; `Watch.seconds_since` says when it could."""
        with self._talking(_client("until", patience, address)) as process:
            _line(process)
            yield Watch(process)

    @contextlib.contextmanager
    def holding(self, count: int, address: Address) -> Generator[None]:
        """Within it, `count` connections are open, each of which has carried a request.

        Raises:
            LabError: not so many could be opened.
        """
        with self._talking(_client("hold", count, address)) as process:
            _line(process)
            yield

    def _told(self, argv: tuple[str, ...], timeout: float) -> str:
        """What our own client has printed; its complaint, without its long command line, is the error."""
        done = self.lab.exec(CLIENT.name, *argv, check=False, timeout=timeout)
        if done.returncode:
            raise LabError(" ".join(done.stderr.split()) or "the client failed without a word")
        return done.stdout

    @contextlib.contextmanager
    def _talking(self, argv: tuple[str, ...]) -> Generator[subprocess.Popen[str]]:
        with subprocess.Popen(  # noqa: S603 our own argv
            self.lab.command(CLIENT.name, *argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _tune(self, *, hears: bool) -> None:
        for member in (CLIENT.name, HOST.name, *_PODS):
            ports = [_PORTS[member]] if member in _PORTS else []
            events = [] if hears and member == HOST.name else [_NO_EVENTS]
            self.lab.exec(member, "sysctl", "-qw", *_SYSCTLS, *ports, *events)

    def _start_servers(self) -> None:
        nginx = find_program("nginx")
        started: list[tuple[Process, int]] = []
        for pod in _PODS:
            directory = self.lab.directory / f"{pod}-nginx"
            directory.mkdir()
            config = self.write(f"{pod}.conf", pod_server(str(directory)))
            http = self.lab.start(pod, pod, nginx, "-e", "stderr", "-p", str(directory), "-c", config)
            started.append((http, HTTP_PORT))
        started += [(process, DNS_PORT) for process in self._name_servers()]
        # Bound to an address, because otherwise it listens on IPv6's wildcard.
        bulk = self.lab.start(
            *("iperf3", SERVER1.name, find_program("iperf3"), "--server"),
            *("--bind", SERVER1.ip, "--port", str(BULK_PORT)),
        )
        started.append((bulk, BULK_PORT))
        for process, port in started:
            wait_until(f"{process.name} serves", partial(process.listens, port), _START_SECONDS)

    def _name_servers(self) -> Iterator[Process]:
        directory = self.lab.directory / "dns"
        directory.mkdir()
        servers = name_servers()
        for name, text in nameserver.files(named(), servers, directory).items():
            (directory / name).write_text(text)
        for pod in servers.backends:
            yield self.lab.start(f"{pod.name}-dns", pod.name, *nameserver.argv(pod, directory))


class Watch:
    """A client that waits for a Service to appear."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seconds_since(self, began: float) -> float:
        """How long after `began` (of `time.monotonic`) the first connection was taken.

        Raises:
            LabError: none was.
        """
        return float(_line(self._process)) - began


def find_program(name: str) -> str:
    """The path of a program, also of those that only root has on its PATH.

    Raises:
        LabError: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if not found:
        raise LabError(f"`{name}` is not installed: scripts/install brings what the benchmark needs")
    return found


def settle(seconds: float) -> None:
    """Let what has just happened come to rest."""
    time.sleep(seconds)


def _client(command: str, number: float, *addresses: Address) -> tuple[str, ...]:
    return (sys.executable, "-m", "userproxy.bench.client", command, f"{number:g}", *map(str, addresses))


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    line = process.stdout.readline()
    if not line:
        said = process.stderr.read().strip() if process.stderr else ""
        raise LabError(f"the client: {' '.join(said.split()) or 'ended without a word'}")
    return line.strip()


def _flush(namespaces: Iterable[str]) -> None:
    for namespace in namespaces:
        netns.setns(namespace, flags=0)
        with Conntrack() as conntrack:
            conntrack.flush()
