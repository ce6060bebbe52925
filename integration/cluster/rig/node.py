"""One node: containerd and a kubelet on a machine of their own, which is a set of namespaces.

```
DIRECTORY/
    lib/ log/ run/      the node's own /var/lib, /var/log and /run
    containerd/         images and containers
    kubelet/            pods
    cni/ sysctl/        the bridge's configuration; files in the place of the machine's sysctls
    *.log *.json *.toml
```
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.cluster.rig import cgroups
from integration.cluster.rig.addresses import DNS
from integration.cluster.rig.space import Space, child_of
from integration.kubernetes.processes import ClusterError, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.cluster.rig.addresses import NodeAddress
    from integration.cluster.rig.images import Image

PLUGINS = Path("/usr/lib/cni")
_START_SECONDS = 60.0
_TOP = Path(__file__).parents[3]
_OWN = {"/var/lib": "lib", "/var/log": "log", "/run": "run"}
"""Where the programs of a node write whatever their configuration says: each node has its own."""
# The kubelet sets these for the whole machine; in their place it finds files of ours that say what it wants.
_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


class Node:
    """A node, from `start_machine` to `stop`; all of it ends with the thread that starts it."""

    def __init__(self, address: NodeAddress, directory: Path, binaries: Path, cgroup: str) -> None:
        """`directory` is made; `cgroup` is there in every hierarchy."""
        self.address = address
        self.directory = directory
        self._binaries = binaries
        self._cgroup = cgroup
        self._servers: list[Server] = []
        self.space = Space(address.name, directory, setup=self._setup(), init=[str(binaries / "pause")])

    @property
    def object(self) -> dict[str, Any]:
        """Its Node, which the kubelet finds when it registers: with its zone and its pods' network."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.address.name,
                "labels": {"topology.kubernetes.io/zone": self.address.zone},
            },
            "spec": {"podCIDR": self.address.pods, "podCIDRs": [self.address.pods]},
        }

    def start_machine(self) -> None:
        """Make its namespaces and mounts, nothing else."""
        for name in (*_OWN.values(), "containerd", "kubelet", "cni", "sysctl"):
            (self.directory / name).mkdir(parents=True)
        for name, value in _SYSCTLS.items():
            (self.directory / "sysctl" / Path(name).name).write_text(str(value))
        (self.directory / "resolv.conf").touch()
        self.space.start()

    def start_containerd(self, images: Sequence[Image]) -> None:
        """Start containerd; it need not serve yet."""
        (self.directory / "containerd.toml").write_text(self._containerd_configuration(images[0].name))
        (self.directory / "cni" / "10-bridge.conflist").write_text(json.dumps(self._cni_configuration()))
        configuration = str(self.directory / "containerd.toml")
        self._servers.append(self.start_program("containerd", "containerd", "--config", configuration))

    def load(self, images: Sequence[Image]) -> None:
        """Import the images. Waits for containerd.

        Raises:
            ClusterError: containerd does not answer, or refused one.
        """
        self.wait_until("containerd answers", lambda: self._ctr("version").returncode == 0, _START_SECONDS)
        for image in images:
            commands: list[tuple[str, ...]] = [("images", "import", str(image.archive))]
            commands += [("images", "tag", image.name, stand_in) for stand_in in image.stand_ins]
            for command in commands:
                done = self._ctr(*command)
                if done.returncode:
                    raise ClusterError(f"{self.address.name}: ctr {' '.join(command)}: {done.stderr.strip()}")

    def start_kubelet(self, kubeconfig: Path) -> None:
        """Start the kubelet; the Node is there."""
        configuration = self.directory / "kubelet.json"
        configuration.write_text(json.dumps(self._kubelet_configuration(), indent=2))
        kubelet = self.start_program(
            "kubelet",
            str(self._binaries / "kubelet"),
            f"--config={configuration}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.address.name}",
            f"--node-ip={self.address.ip}",
            f"--root-dir={self.directory / 'kubelet'}",
            "--v=2",
        )
        self._servers.append(kubelet)

    def start_program(self, name: str, *command: str) -> Server:
        """Start a program on the node, logged to NAME.log."""
        server = Server(self.space.enter(command), netns=None, log=self.directory / f"{name}.log")
        server.start()
        return server

    def fail_if_ended(self) -> None:
        """Raises ClusterError with the end of its log if containerd or the kubelet has ended by itself."""
        for server in self._servers:
            server.fail_if_ended()

    def program_of(self, server: Server) -> int:
        """The process id of a program that was started here, as our own pid namespace has it.

        Raises:
            ClusterError: it does not run.
        """
        if server.pid is None:
            raise ClusterError(f"{server.name} does not run on {self.address.name}")
        return child_of(server.pid)

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a program on the node to its end; its exit code is the caller's.

        Raises:
            ClusterError: it took longer than `timeout` seconds.
        """
        try:
            return subprocess.run(
                self.space.enter(command), capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"`{' '.join(command)}` on {self.address.name}: not done after {timeout:g} s"
            ) from None

    def wait_until(self, what: str, condition: Callable[[], bool], timeout: float) -> None:
        """Poll until it is so.

        Raises:
            ClusterError: it is not, after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.address.name}, {what}: not so after {timeout:g} s")
            time.sleep(0.2)

    def stop(self) -> None:
        """End everything on it at once. May be called at any time, and again."""
        self.space.stop()

    def _ctr(self, *command: str) -> subprocess.CompletedProcess[str]:
        socket = str(self.directory / "run" / "containerd.sock")
        return self.run("ctr", f"--address={socket}", "--namespace=k8s.io", *command, timeout=300.0)

    def _setup(self) -> str:
        """Shell for the node's mount namespace. What we run from must stay visible in it."""
        lines = [
            "mount -t proc proc /proc",
            "mount -t sysfs sysfs /sys",
            cgroups.here().mount_script,
            # A kubelet reads the kernel's log; the /dev of a chroot may be without it.
            "if ! [ -e /dev/kmsg ]; then",
            "mount -t devtmpfs devtmpfs /dev && mkdir -p /dev/pts",
            "mount -t devpts -o ptmxmode=666 devpts /dev/pts; fi",
        ]
        kept = {
            str(path)
            for path in (_TOP, self.directory, self._binaries, Path(sys.prefix), Path(sys.base_prefix))
        }
        for place, name in _OWN.items():
            own = self.directory / name
            for path in sorted(each for each in kept if each.startswith(f"{place}/")):
                inside = shlex.quote(f"{own}{path.removeprefix(place)}")
                lines.append(f"mkdir -p {inside} && mount --rbind {shlex.quote(path)} {inside}")
            lines.append(f"mount --rbind {shlex.quote(str(own))} {place}")
        for name in _SYSCTLS:
            ours = shlex.quote(str(self.directory / "sysctl" / Path(name).name))
            lines.append(f"mount --bind {ours} /proc/sys/{name}")
        # A pod may want what is mounted on its node, and the other way round
        lines += ["mount --make-rshared /", f"hostname {self.address.name}", "cd /"]
        return "\n".join(lines)

    def _containerd_configuration(self, pause: str) -> str:
        return f"""\
version = 2
root = "{self.directory}/containerd"
state = "{self.directory}/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{self.directory}/run/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true # root may lack CAP_SYS_RESOURCE
disable_apparmor = true
disable_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{self.directory}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""

    def _cni_configuration(self) -> dict[str, Any]:
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": self.address.pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        host_ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "cluster", "plugins": [bridge, host_ports]}

    def _kubelet_configuration(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cgroup}",
            "enforceNodeAllocatable": ["none"],
            "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
            "containerRuntimeEndpoint": f"unix://{self.directory}/run/containerd.sock",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS],
            "resolvConf": str(self.directory / "resolv.conf"),
            "maxPods": 60,
            "serializeImagePulls": False,
            "syncFrequency": "10s",
        }
