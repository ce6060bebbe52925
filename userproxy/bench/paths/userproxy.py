"""Our own daemon, in each of its modes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from userproxy import __version__
from userproxy.bench import usage
from userproxy.bench.paths.base import PathUnavailableError, ScalablePath
from userproxy.bench.services import HOST, HTTP, MEASURED, addresses_of, manifest
from userproxy.lab.network import LabError
from userproxy.model.service import Path as Mode
from userproxy.ops.client import AdminClient, AdminError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.bench.services import Service

_PORT_RANGE = "2000-18399"  # room for the listeners of 10,000 Services, below the ephemeral ports
_START_SECONDS = 15.0


class UserproxyPath(ScalablePath):
    """`userproxy run` on the host, with a directory of manifests."""

    mode: ClassVar[Mode]

    def version(self) -> str:
        """Our own."""
        return f"userproxy {__version__}"

    def start(self) -> None:
        """Start the daemon with the measured Services."""
        self.site.lab.write_manifest("measured.yaml", manifest(MEASURED))
        self._start_daemon(_START_SECONDS)
        self._await([HTTP], _START_SECONDS)

    def stop(self) -> None:
        """Stop the daemon, if it runs."""
        if self._process:
            self._process.stop()

    def processes(self) -> list[int]:
        """The daemon's, as it tells it itself."""
        try:
            with AdminClient(self.site.lab.admin_socket(HOST.name)) as admin:
                return usage.family(admin.status().pid)
        except AdminError:
            return []

    def load(self, services: list[Service], patience: float) -> float:
        """Start the daemon anew, with a manifest of all of them."""
        self.stop()
        self.site.lab.write_manifest("fillers.yaml", manifest(services))
        began = time.monotonic()
        self._start_daemon(patience)
        self._await([HTTP, *services], patience)
        return time.monotonic() - began

    def add(self, service: Service) -> None:
        """Put a manifest of its own beside the others."""
        self.site.lab.write_manifest(f"{service.name}.yaml", manifest([service]))

    def remove(self, service: Service) -> None:
        """Take its manifest away."""
        self.site.lab.remove_manifest(f"{service.name}.yaml")

    def _start_daemon(self, patience: float) -> None:
        self._process = self.site.lab.start_daemon(
            HOST.name,
            *("--mode", self.mode.value, "--port-range", _PORT_RANGE),
            *("--drain-seconds", "0", "--on-stop", "remove", "--log-level", "warning"),
            wait=False,
        )
        self.site.lab.wait_for_daemon(HOST.name, patience)

    def _await(self, services: Sequence[Service], patience: float) -> None:
        try:
            self.site.await_services(addresses_of(services), patience)
        except LabError as error:
            raise PathUnavailableError(f"{error}; {self._problems()}") from None

    def _problems(self) -> str:
        """What the daemon itself says is wrong, as far as it does."""
        try:
            with AdminClient(self.site.lab.admin_socket(HOST.name)) as admin:
                said = admin.status().problems
        except AdminError as error:
            return str(error)
        if said:
            return str(said)
        output = self._process.output() if self._process else ""
        return (
            f"its log ends: {output.strip().splitlines()[-1]}" if output.strip() else "it reports no problem"
        )


class RedirectToHostPath(UserproxyPath):
    """netfilter leads to our listener, and we splice to a pod."""

    name = "redirect-to-host"
    title = "userproxy, redirect to host"
    note = "one process, one event loop"
    relays = True
    mode = Mode.REDIRECT_TO_HOST


class RedirectToPodPath(UserproxyPath):
    """netfilter leads to a pod, and we keep its rules in step."""

    name = "redirect-to-pod"
    title = "userproxy, redirect to pod"
    note = "the kernel carries the bytes, by maps of nftables"
    mode = Mode.REDIRECT_TO_POD


class SteeredPath(UserproxyPath):
    """We choose the pod of each connection at its first packet, and the kernel carries it there."""

    name = "steered"
    title = "userproxy, steered"
    note = "chosen in userspace, by a netfilter queue; the kernel carries the bytes"
    hears = True
    mode = Mode.STEERED
