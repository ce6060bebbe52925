"""From a real kube-proxy to userproxy and back on a node with traffic, as docs/switching.md says."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.kubernetes.source.site import HOST, PATIENCE_SECONDS, Site, reference
from integration.restart.load import Load, Transfer
from integration.sockets import connect
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import REFERENCE, SERVER_SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userproxy.lab.processes import Process

GUIDE = Path(__file__).parents[2] / "docs" / "switching.md"
FRONTEND = SERVER_SERVICE.frontend
TABLES = {"iptables": "ip nat", "nftables": "ip kube-proxy"}
TRANSFERS = 3
PIECES = 200
A_FEW = 2
SLOW_SECONDS = 1.0


def commands() -> list[str]:
    """Those of the guide, in order."""
    blocks: list[str] = re.findall(r"```\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


class Node:
    """A node with a proxy, on which somebody types what the guide says.

    Args:
        site: whose host1 it is.
        binaries: where kube-proxy is.
        mode: of kube-proxy.

    Attributes:
        load: new connections, a hundred a second.
        transfers: that have begun, and must end well.
        commands: what each of the guide's does.
    """

    def __init__(self, site: Site, binaries: Path, mode: str) -> None:
        self.load = Load(site.lab, FRONTEND, rate=100, threads=4)
        self.transfers: list[Transfer] = []
        self._site = site
        self._program = str(binaries / "kube-proxy")
        self._mode = mode
        self._kube_proxy: Process | None = None
        self.commands: dict[str, Callable[[], object]] = {
            "systemctl start userproxy": self.start_userproxy,
            "userproxy status": self.status,
            "systemctl disable --now kube-proxy": self.stop_kube_proxy,
            "kube-proxy --cleanup": self.clean_up_kube_proxy,
            "systemctl enable --now kube-proxy": self.start_kube_proxy,
            "systemctl stop userproxy": self.stop_userproxy,
            "userproxy cleanup": self.clean_up_userproxy,
        }

    def start_kube_proxy(self) -> None:
        """It serves."""
        self._kube_proxy = self._site.lab.start(
            "kube-proxy",
            HOST,
            *(self._program, "--proxy-mode", self._mode, "--hostname-override", HOST),
            *("--kubeconfig", str(self._site.cluster.admin_kubeconfig), "--cluster-cidr=10.0.0.0/14"),
            # The namespace may not set what belongs to the whole machine.
            *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
            "--conntrack-tcp-timeout-close-wait=0",
        )
        wait_until("kube-proxy serves", lambda: FRONTEND.ip in self._rules(), PATIENCE_SECONDS)

    def stop_kube_proxy(self) -> None:
        """Its rules stay."""
        assert self._kube_proxy is not None
        self._kube_proxy.stop()
        assert FRONTEND.ip in self._rules()

    def clean_up_kube_proxy(self) -> None:
        """Ours are what they were."""
        before = self._ours()
        assert before
        self._site.lab.exec(HOST, self._program, "--cleanup")
        assert FRONTEND.ip not in self._rules()
        assert self._ours() == before

    def start_userproxy(self) -> None:
        """New connections are its own."""
        self._site.start_daemon()
        wait_until("new connections are its own", self._relays, PATIENCE_SECONDS)

    def status(self) -> None:
        """Nothing is wrong."""
        assert "problems:    0" in self._site.lab.userproxy(HOST, "status")

    def stop_userproxy(self) -> None:
        """Whoever is connected through it ends in its time, unharmed."""
        self._site.daemon.send(signal.SIGTERM)
        wait_until("it stops", lambda: bool(self._site.log("stopping")), PATIENCE_SECONDS)
        self.finish()
        assert self._site.daemon.wait(PATIENCE_SECONDS) == 0
        assert self._ours(), "its rules stay"

    def clean_up_userproxy(self) -> None:
        """Those of kube-proxy are what they were."""
        before = self._rules()
        self._site.lab.userproxy(HOST, "cleanup")
        assert not self._ours()
        assert self._rules() == before

    def go_on(self) -> None:
        """What has begun goes on, and more begins."""
        for transfer in self.transfers:
            transfer.some(A_FEW)
        self.transfers += [Transfer(self._site.lab, FRONTEND, pieces=PIECES) for _ in range(TRANSFERS)]

    def finish(self) -> None:
        """All that has begun ends well."""
        assert all(transfer.finish() for transfer in self.transfers)
        self.transfers.clear()

    def _relays(self) -> bool:
        with connect(self._site.lab, "client", FRONTEND) as connection:
            client = "{}:{}".format(*connection.getsockname())
            rows = self._site.lab.rows(HOST, "connections", "--client", client.partition(":")[0])
        return (client, "redirect-to-host") in {(row["client"], row["path"]) for row in rows}

    def _rules(self) -> str:
        """What kube-proxy has put into the kernel, without what is counted."""
        table = TABLES[self._mode].split()
        listed = self._site.lab.exec(HOST, "nft", "--stateless", "list", "table", *table, check=False)
        return re.sub(r"counter packets \d+ bytes \d+", "", listed.stdout)

    def _ours(self) -> str:
        """And what userproxy has."""
        table = ("nft", "--stateless", "list", "table", "inet", "userproxy")
        return self._site.lab.exec(HOST, *table, check=False).stdout


@pytest.fixture(params=TABLES)
def node(able: None, kubernetes_binaries: Path, request: pytest.FixtureRequest) -> Iterator[Node]:  # noqa: ARG001 - able is a condition
    """A node that kube-proxy serves."""
    if not (kubernetes_binaries / "kube-proxy").exists():
        pytest.skip("no kube-proxy: build it with scripts/kubernetes-binaries --with-kube-proxy")
    with Site(f"switch-{request.param}-{os.getpid()}", kubernetes_binaries) as site:
        status = {"addresses": [{"type": "InternalIP", "address": REFERENCE.host(HOST).ip}]}
        patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
        site.cluster.kubectl("patch", "node", HOST, *patch)  # kube-proxy waits for it
        site.cluster.apply(*reference())
        made = Node(site, kubernetes_binaries, request.param)
        made.start_kube_proxy()
        wait_until("it is served", lambda: bool(site.ask()), PATIENCE_SECONDS)
        yield made


def test_the_guide_leads_to_userproxy_and_back_and_no_connection_fails(node: Node) -> None:
    guide = commands()
    assert set(guide) == set(node.commands)
    with node.load.going_on():
        for command in guide:
            node.go_on()
            print(f"{command}: {node.load.failed.total()} of {node.load.answered.total()} failed")
            node.commands[command]()
            assert node.load.failed.total() == 0, command
        node.go_on()
    node.finish()
    print(node.load)
    assert node.load.failed.total() == 0
    assert node.load.slowest < SLOW_SECONDS
