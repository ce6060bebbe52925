"""userproxy on all nodes as `kubectl apply --kustomize scripts/deploy` brings it: a DaemonSet."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from integration.cluster.rig import own_image
from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from integration.cluster.rig.node import Node
    from integration.cluster.rig.rig import Rig

_DEPLOY = Path(__file__).parents[3] / "scripts" / "deploy"
_USERPROXY = str(Path(sys.executable).with_name("userproxy"))
_OBJECT, _NAMESPACE = "daemonset/userproxy", "--namespace=kube-system"
_SELECTOR = "--selector=app.kubernetes.io/name=userproxy"
_ROLLOUT_SECONDS = 150.0
_LONGER = {
    "--drain-seconds=30": "--drain-seconds=170",
    "terminationGracePeriodSeconds: 60": "terminationGracePeriodSeconds: 190",
}
"""What an update of three nodes takes at most."""
_SHOWN = ("Dockerfile", "userproxy.service")


class Deployed:
    """There as long as the context lasts. No other proxy is on the nodes."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        """`directory`: for what is written; it is there."""
        self._rig = rig
        self._directory = directory
        self._image = "userproxy:dev"  # as scripts/deploy has it

    def __enter__(self) -> Self:
        self._rig.load(own_image.make(self._directory / "image"))
        self._rig.api.kubectl("apply", f"--kustomize={self._overlay()}")
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rig.api.kubectl("delete", _OBJECT, _NAMESPACE, "--cascade=foreground", "--timeout=50s")
        for each in self._rig.nodes:
            each.run(_USERPROXY, "cleanup")
            each.run("conntrack", "-F")

    def wait(self) -> None:
        """Wait until each node has a pod of the latest version that is ready.

        Raises:
            ClusterError: it does not come to that; with what the API server and the pods say.
        """
        deadline = time.monotonic() + _ROLLOUT_SECONDS
        while not self._is_rolled_out():
            self._rig.fail_if_ended()
            if time.monotonic() > deadline:
                said = self._rig.api.kubectl("describe", "pods", _NAMESPACE, _SELECTOR)
                raise ClusterError(f"no roll-out after {_ROLLOUT_SECONDS} s:\n{said}\n{self.logs()}")
            time.sleep(0.5)

    def update(self) -> None:
        """Have the pods replaced by those of another version; returns when the API server knows."""
        self._image = own_image.NAMES[1]
        self._rig.api.kubectl("set", "image", _OBJECT, _NAMESPACE, f"userproxy={self._image}")

    def restarts(self) -> int:
        """How often the kubelets have started containers of theirs again."""
        counts = "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}"
        return sum(map(int, self._rig.api.kubectl("get", "pods", _NAMESPACE, _SELECTOR, counts).split()))

    def logs(self) -> str:
        """The last lines of each pod."""
        return self._rig.api.kubectl("logs", _NAMESPACE, _SELECTOR, "--tail=30", "--prefix")

    @staticmethod
    def daemon_on(node: Node) -> int:
        """The latest daemon on a node, below the first process of its container; 0 if there is none."""
        netns = Path(node.space.netns).stat().st_ino
        found: dict[int, tuple[int, int]] = {}  # parent, and when it was started
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = b"--take-over=true" in (entry / "cmdline").read_bytes().split(b"\0")
                if ours and (entry / "ns/net").stat().st_ino == netns:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    found[int(entry.name)] = int(fields[1]), int(fields[19])
        daemons = {started: pid for pid, (parent, started) in found.items() if parent in found}
        return daemons[max(daemons)] if daemons else 0

    def _is_rolled_out(self) -> bool:
        """Not by the DaemonSet's status, which is that of the oldest pod of a node until this has ended."""
        pods = [pod for pod in self._found() if "deletionTimestamp" not in pod["metadata"]]
        ready = {
            pod["spec"]["nodeName"]
            for pod in pods
            for condition in pod.get("status", {}).get("conditions", ())
            if (condition["type"], condition["status"]) == ("Ready", "True")
        }
        images = {pod["spec"]["containers"][0]["image"] for pod in pods}
        return images == {self._image} and len(ready) == len(pods) == len(self._rig.nodes)

    def _found(self) -> list[dict[str, Any]]:
        output = self._rig.api.kubectl("get", "pods", _NAMESPACE, "--output=json", _SELECTOR)
        found: list[dict[str, Any]] = json.loads(output)["items"]
        return found

    def _overlay(self) -> Path:
        """What a user would change: the address of the API server, and how long connections may go on."""
        base = self._directory / "base"
        shutil.copytree(_DEPLOY, base, ignore=shutil.ignore_patterns(*_SHOWN))
        text = (base / "daemonset.yaml").read_text()
        for theirs, ours in _LONGER.items():
            assert text.count(theirs) == 1
            text = text.replace(theirs, ours)
        (base / "daemonset.yaml").write_text(text)
        overlay = self._directory / "overlay"
        overlay.mkdir()
        server = urlsplit(self._rig.api.url)
        literals = [f"KUBERNETES_SERVICE_HOST={server.hostname}", f"KUBERNETES_SERVICE_PORT={server.port}"]
        generator = {"name": "userproxy-api-server", "behavior": "merge", "literals": literals}
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "kube-system",
            "resources": ["../base"],
            "configMapGenerator": [generator],
        }
        (overlay / "kustomization.yaml").write_text(json.dumps(content))
        return overlay
