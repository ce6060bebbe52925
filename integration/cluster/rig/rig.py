"""The whole: a control plane and three nodes on one machine, up as long as the context lasts."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from integration.cluster.rig import images, machine, network
from integration.cluster.rig.addresses import NODES
from integration.cluster.rig.caretaker import Caretaker
from integration.cluster.rig.control_plane import ControlPlane
from integration.cluster.rig.node import Node
from integration.cluster.rig.proxy import RBAC, NodeProxy, Proxy
from integration.kubernetes.processes import ClusterError
from userproxy.lab.processes import undisturbed

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from integration.cluster.rig.addresses import NodeAddress
    from integration.kubernetes.cluster import Cluster

_READY_SECONDS = 120


class Rig:
    """A cluster without a service proxy, until `use` gives its nodes one.

    Start it from a thread that outlives it: the kernel ends everything together with that thread. Several
    live side by side, of different processes or not.

    Attributes:
        name: in the names of its cgroups, which all rigs of the machine share.
        nodes: once it is up.
    """

    def __init__(self, binaries: Path, *, nodes: Sequence[NodeAddress] = NODES) -> None:
        """Describe it; nothing runs before `up` (or entering the context).

        Args:
            binaries: what `scripts/kubernetes-binaries --with-kube-proxy --with-nodes` prints.
            nodes: all, or some of them.
        """
        self.name = f"userproxy-cluster-{os.getpid()}-{id(self):x}"
        self._binaries = binaries
        self._addresses = nodes
        self._undo = contextlib.ExitStack()
        self._proxies: list[NodeProxy] = []
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def directory(self) -> Path:
        """Where logs and everything else are while it is up."""
        return self._caretaker.directory

    @property
    def api(self) -> Cluster:
        """The API server."""
        return self._control_plane.api

    @property
    def netns(self) -> str:
        """The file of the namespace that clients of the cluster run in, beside the API server."""
        return self._control_plane.space.netns

    def up(self) -> None:
        """Bring it up: about half a minute on an idle machine, and a minute more where images are to be made.

        Raises:
            ClusterError: the machine lacks something, or a part did not come up; nothing is left.
        """
        machine.preflight()
        made = images.make(self._binaries)
        try:
            self._build(made)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Take everything away. May be called at any time, and again.

        Raises:
            ClusterError: something would not go.
        """
        with undisturbed():
            self._undo.close()

    def use(self, proxy: Proxy) -> None:
        """Give every node this service proxy, in place of the one before.

        Raises:
            ClusterError: that one does not stop, or this one does not serve.
        """
        self.clear()
        for each in self._proxies:
            each.start(proxy)
        for each in self._proxies:
            each.wait()

    def clear(self) -> None:
        """Take the service proxy from every node.

        Raises:
            ClusterError: one does not stop.
        """
        self.fail_if_ended()
        for each in self._proxies:
            each.stop()

    def load(self, image: images.Image) -> None:
        """Give every node another image.

        Raises:
            ClusterError: containerd refused it.
        """
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(lambda node: node.load([image]), self.nodes))

    def fail_if_ended(self) -> None:
        """Raises ClusterError with the end of its log if a part of the cluster has ended by itself."""
        self._control_plane.fail_if_ended()
        for node in self.nodes:
            node.fail_if_ended()

    def _build(self, made: Sequence[images.Image]) -> None:
        undo = self._undo
        groups = {node: f"{self.name}-{node.name}" for node in self._addresses}
        self._caretaker = Caretaker(list(groups.values()))
        undo.callback(self._caretaker.stop)
        self._caretaker.start()
        self._control_plane = ControlPlane(self.directory, self._binaries)
        undo.callback(self._control_plane.stop)
        self._control_plane.start_machine()
        self.nodes = [
            Node(each, self.directory / each.name, self._binaries, group) for each, group in groups.items()
        ]
        for node in self.nodes:
            undo.callback(node.stop)
            node.start_machine()
        network.connect(self._control_plane.space, {node.address: node.space for node in self.nodes})
        for node in self.nodes:
            node.start_containerd(made)
        # Images while the control plane starts. Servers are started by this thread: they end with theirs.
        with ThreadPoolExecutor(len(self.nodes)) as threads, self._nodes_ended_on_error():
            loading = [threads.submit(node.load, made) for node in self.nodes]
            self._control_plane.start()
            self._control_plane.publish_dns()
            self.api.apply(*(node.object for node in self.nodes))
            for each in loading:
                each.result()
        for node in self.nodes:
            node.start_kubelet(self.api.admin_kubeconfig)
        ours = self.api.kubeconfig_for("userproxy", "kube-system")
        self.api.kubectl("apply", "--namespace=kube-system", f"--filename={RBAC}")
        kubeconfigs = dict.fromkeys(Proxy, ours) | {Proxy.KUBE_PROXY: self.api.admin_kubeconfig}
        self._proxies = [NodeProxy(node, self._binaries, kubeconfigs) for node in self.nodes]
        self._wait_for_nodes()
        # Without it no pod is admitted; the controller manager makes it when it comes to that.
        self.api.kubectl("wait", "serviceaccount/default", "--for=create", f"--timeout={_READY_SECONDS:g}s")

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        while self.api.kubectl("get", "nodes", f"--output={ready}").split() != ["True"] * len(self.nodes):
            self.fail_if_ended()
            if time.monotonic() > deadline:
                raise ClusterError(f"the nodes are not ready after {_READY_SECONDS} s: {self._conditions()}")
            time.sleep(0.5)

    def _conditions(self) -> str:
        message = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].message}"
        return self.api.kubectl("get", "nodes", f"--output={message}")

    @contextlib.contextmanager
    def _nodes_ended_on_error(self) -> Generator[None]:
        """So that nobody waits for what is under way on them."""
        try:
            yield
        except BaseException:
            for node in self.nodes:
                node.stop()
            raise
