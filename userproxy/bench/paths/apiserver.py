"""An API server for the peers that can only be configured through one: etcd and kube-apiserver, nothing else.

It runs in a lab of its own; each host that needs it gets one more link to there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2 import netns

from userproxy.bench.paths.base import PathUnavailableError
from userproxy.bench.services import HOST, SERVICE_NETWORK
from userproxy.lab.apiserver.commands import Addresses, apiserver_command, etcd_command
from userproxy.lab.apiserver.credentials import Credentials
from userproxy.lab.deployment import Lab
from userproxy.lab.network import LabError
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import Deployment, Host, Pod

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.bench.site import Site
    from userproxy.lab.objects import Object

_ADDRESSES = Addresses(ip_address("172.31.0.1"), port=6443, etcd_port=2379, etcd_peer_port=2380)
_NETWORK = "172.31.0.0/24"
_READY_SECONDS = 90.0
_REQUEST_SECONDS = 60.0
_NOT_FOUND, _FIRST_ERROR = 404, 300
_WRITERS = 4
_IDLE_SECONDS = 20.0
"""After which a connection is made anew, since the API server closes those that are idle."""

# A bridge without a port has no carrier, so even a lab for one server has a host and a pod.
_DEPLOYMENT = Deployment(
    gateway="control",
    gateway_ip=str(_ADDRESSES.address),
    host_network=_NETWORK,
    service_network=SERVICE_NETWORK,
    hosts=(
        Host(name="node", ip="172.31.0.2", pod_network="10.0.9.0/24", pods=(Pod(name="p", ip="10.0.9.2"),)),
    ),
    services=(),
)
_FLAGS = (
    "--disable-admission-plugins=ServiceAccount",  # which needs a controller
    "--enable-priority-and-fairness=false",
)
_COLLECTIONS = {
    "Node": "/api/v1/nodes",
    "Service": "/api/v1/namespaces/default/services",
    "Endpoints": "/api/v1/namespaces/default/endpoints",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
}


class ApiServer:
    """The API server and what is asked of it. Started when first needed.

    Args:
        name: of its lab.
    """

    def __init__(self, name: str) -> None:
        self._lab = Lab(name, daemons=False, deployment=_DEPLOYMENT)
        self._sessions: list[_Session] = []
        self._created: set[tuple[str, str]] = set()
        self._linked = 0
        self._up = False
        self._refused: str | None = None

    def start(self) -> None:
        """Start etcd and the API server, unless they run; return when it is ready.

        Raises:
            PathUnavailableError: they cannot be found or do not start.
        """
        if self._refused:
            raise PathUnavailableError(self._refused)
        if self._sessions:
            return
        try:
            self._start(binaries())
        except (LabError, PathUnavailableError) as error:
            self._refused = f"no API server: {error}"
            self.stop()
            raise PathUnavailableError(self._refused) from None

    def stop(self) -> None:
        """End them, and their lab, if it was brought up."""
        self._sessions.clear()
        if self._up:
            self._lab.down()
            self._up = False

    def link(self, site: Site) -> str:
        """Connect a site's host to the API server; returns the path of a kubeconfig.

        Raises:
            LabError: the kernel refused.
        """
        self._linked += 1
        there, end = self._lab.namespace("control"), f"peer{self._linked}"
        host, address = site.lab.namespace(HOST.name), f"172.31.0.{10 + self._linked}/24"
        for command in (
            f"-n {host} link add control type veth peer name {end} netns {there}",
            f"-n {host} address add {address} dev control",
            f"-n {host} link set control up",
            f"-n {there} link set {end} master hosts up",
        ):
            self._lab.exec("control", "ip", *command.split())
        kubeconfig = site.lab.directory / "kubeconfig"
        self._credentials.write_admin_kubeconfig(kubeconfig)
        return str(kubeconfig)

    def create(self, objects: Iterable[Object]) -> None:
        """Create objects, but for those that have been created already.

        Raises:
            LabError: the API server refused one.
        """
        queue = [each for each in objects if _identity(each) not in self._created]
        with ThreadPoolExecutor(len(self._sessions)) as threads:
            shares = (queue[number :: len(self._sessions)] for number in range(len(self._sessions)))
            for _ in threads.map(_create_all, self._sessions, shares):
                pass
        self._created.update(map(_identity, queue))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, if it is there.

        Raises:
            LabError: the API server refused.
        """
        self._created.discard((kind, name))
        self._sessions[0].ask("DELETE", f"{_COLLECTIONS[kind]}/{name}", None, fine=(_NOT_FOUND,))

    def set_node_ip(self, name: str, ip: str) -> None:
        """Give a Node its InternalIP.

        Raises:
            LabError: the API server refused.
        """
        status = {"status": {"addresses": [{"type": "InternalIP", "address": ip}]}}
        self._sessions[0].ask("PATCH", f"{_COLLECTIONS['Node']}/{name}/status", status)

    def _start(self, programs: Path) -> None:
        self._up = True
        try:
            self._lab.up()
        except LabError:
            self._up = False  # it is somebody else's, or has taken itself down
            raise
        directory = self._lab.directory
        self._credentials = Credentials(directory, _ADDRESSES.url)
        self._lab.start("etcd", "control", *etcd_command(programs, _ADDRESSES, directory / "etcd"))
        command = apiserver_command(programs, _ADDRESSES, SERVICE_NETWORK)
        server = self._lab.start(
            "apiserver", "control", *command, *self._credentials.apiserver_flags, *_FLAGS
        )
        wait_until("the API server listens", lambda: server.listens(_ADDRESSES.port), _READY_SECONDS)
        namespace = self._lab.namespace("control")
        first = _Session(namespace, self._credentials)
        wait_until("the API server is ready", lambda: first.succeeds("/readyz"), _READY_SECONDS)
        wait_until(
            "the API server has its namespace",
            lambda: first.succeeds("/api/v1/namespaces/default/services/kubernetes"),
            _READY_SECONDS,
        )
        self._sessions = [first, *(_Session(namespace, self._credentials) for _ in range(_WRITERS - 1))]


class _Session:
    """One connection to the API server, made in its namespace and used from ours."""

    def __init__(self, namespace: str, credentials: Credentials) -> None:
        self._namespace = namespace
        self._tls = ssl.create_default_context(cafile=credentials.ca_file)
        self._headers = {"Authorization": f"Bearer {credentials.admin_token}"}
        self._http: HTTPConnection | None = None
        self._used = 0.0

    def succeeds(self, path: str) -> bool:
        try:
            self.ask("GET", path, None)
        except LabError:
            return False
        return True

    def ask(self, method: str, path: str, body: Object | None, fine: tuple[int, ...] = ()) -> None:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        if time.monotonic() - self._used > _IDLE_SECONDS:
            self._http = None
        try:
            http = self._http = self._http or self._connect()
            http.request(
                method, path, json.dumps(body) if body else None, self._headers | {"Content-Type": kind}
            )
            answer = http.getresponse()
            text = answer.read().decode(errors="replace")
            self._used = time.monotonic()
        except (OSError, HTTPException) as error:
            self._http = None
            raise LabError(f"the API server does not answer {method} {path}: {error}") from None
        if answer.status >= _FIRST_ERROR and answer.status not in fine:
            raise LabError(f"the API server refused {method} {path}: {answer.status} {_message(text)}")

    def _connect(self) -> HTTPConnection:
        ip, port = str(_ADDRESSES.address), _ADDRESSES.port

        def reach() -> socket.socket:
            netns.setns(self._namespace, flags=0)
            return socket.create_connection((ip, port), _REQUEST_SECONDS)

        with ThreadPoolExecutor(1) as thread:  # the namespace is the thread's, and it ends
            raw = thread.submit(reach).result()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        http = HTTPConnection(ip, port)
        http.sock = self._tls.wrap_socket(raw, server_hostname=ip)
        return http


def binaries() -> Path:
    """The directory with kube-apiserver and etcd, as `scripts/kubernetes-binaries` finds them.

    Raises:
        PathUnavailableError: there is none.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "userproxy"
    candidates = [os.environ.get("KUBEBUILDER_ASSETS", ""), *os.environ.get("PATH", "").split(":")]
    built = sorted(cache.glob("kubernetes-*/*/kube-apiserver"), key=lambda file: file.stat().st_mtime)
    candidates += [str(file.parent) for file in reversed(built)]
    for directory in candidates:
        if directory and all(
            shutil.which(name, path=directory) and not _is_old(name, directory)
            for name in ("kube-apiserver", "etcd")
        ):
            return Path(directory)
    raise PathUnavailableError(
        "kube-apiserver and etcd are not in KUBEBUILDER_ASSETS, on PATH or in the cache: "
        "scripts/kubernetes-binaries builds them"
    )


def _is_old(name: str, directory: str) -> bool:
    """Whether it is an etcd before 3.5, with which watches of the API server end."""
    if name != "etcd":
        return False
    done = subprocess.run(  # noqa: S603 a program the user has named or that we have built
        [f"{directory}/etcd", "--version"], capture_output=True, text=True, check=False
    )
    version = done.stdout.partition("etcd Version: ")[2].split(".")
    return [int(part) for part in version[:2] if part.isdecimal()] < [3, 5]


def _create_all(session: _Session, objects: Iterable[Object]) -> None:
    for each in objects:
        collection, name = _COLLECTIONS[each["kind"]], each["metadata"]["name"]
        session.ask("POST", collection, each)
        if "status" in each:  # which is left out of what is created
            session.ask("PATCH", f"{collection}/{name}/status", {"status": each["status"]})


def _identity(each: Object) -> tuple[str, str]:
    return each["kind"], each["metadata"]["name"]


def _message(text: str) -> str:
    try:
        answer: Any = json.loads(text)
    except ValueError:
        return text[:200]
    return str(answer.get("message", text[:200])) if isinstance(answer, dict) else text[:200]
