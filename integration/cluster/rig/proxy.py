"""Which service proxy the nodes have: one at a time, and no other beside it."""

from __future__ import annotations

import enum
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.rig.addresses import PODS
from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.cluster.rig.node import Node
    from integration.kubernetes.processes import Server

RBAC = Path(__file__).parents[3] / "scripts" / "deploy" / "rbac.yaml"
_USERPROXY = str(Path(sys.executable).with_name("userproxy"))
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_DRAIN_SECONDS = 2


class Proxy(enum.Enum):
    """The proxies that the tests are run against."""

    KUBE_PROXY = "kube-proxy"
    """In nftables mode."""
    REDIRECT_TO_HOST = "redirect-to-host"
    REDIRECT_TO_POD = "redirect-to-pod"


class NodeProxy:
    """The service proxy of one node."""

    def __init__(self, node: Node, binaries: Path, kubeconfigs: Mapping[Proxy, Path]) -> None:
        """`kubeconfigs`: of somebody who may what each proxy needs: `scripts/deploy` grants it userproxy."""
        self._node = node
        self._binaries = binaries
        self._kubeconfigs = kubeconfigs
        self._running: tuple[Proxy, Server] | None = None

    def start(self, proxy: Proxy) -> None:
        """Start a proxy; `wait` says when it serves."""
        server = self._node.start_program(proxy.value, *self._command(proxy))
        self._running = (proxy, server)

    def wait(self) -> None:
        """Wait until it serves what the API server has.

        Raises:
            ClusterError: it ended, or is not healthy in time.
        """
        if self._running is None:
            return
        _, server = self._running

        def healthy() -> bool:
            server.fail_if_ended()
            return self._node.run("curl", "-fsS", "-m", "5", "http://127.0.0.1:10256/healthz").returncode == 0

        try:
            self._node.wait_until(f"{server.name} is healthy", healthy, _START_SECONDS)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{server.log_tail()}") from None

    def stop(self) -> None:
        """Stop the proxy as its operator would, and see that it leaves nothing for the next one.

        Raises:
            ClusterError: it does not end.
        """
        if self._running is None:
            return
        proxy, server = self._running
        self._running = None
        if server.is_running:
            os.kill(self._node.program_of(server), signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while server.is_running:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{proxy.value} on {self._node.address.name} ignores SIGTERM: {server.log}"
                )
            time.sleep(0.05)
        if proxy is Proxy.KUBE_PROXY:
            self._node.run(str(self._binaries / "kube-proxy"), "--cleanup")
        else:
            self._node.run(_USERPROXY, "cleanup")
        self._node.run("conntrack", "-F")

    def _command(self, proxy: Proxy) -> list[str]:
        name = self._node.address.name
        if proxy is Proxy.KUBE_PROXY:
            return [
                str(self._binaries / "kube-proxy"),
                "--proxy-mode=nftables",
                f"--kubeconfig={self._kubeconfigs[proxy]}",
                f"--hostname-override={name}",
                f"--cluster-cidr={PODS}",
                "--conntrack-max-per-core=0",  # the machine's own limit stays
                "--conntrack-min=0",
                "--v=2",
            ]
        return [
            *(_USERPROXY, "run", "--kubeconfig", str(self._kubeconfigs[proxy]), "--node-name", name),
            *("--mode", proxy.value, "--drain-seconds", str(_DRAIN_SECONDS), "--log-format", "json"),
        ]
