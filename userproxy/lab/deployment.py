"""A lab: one deployment that runs in namespaces of its own, with everything it leaves in one directory.

```
/run/userproxy/lab/NAME/
    owner           who brought it up: pid and start time, or `detached`
    manifests/      the Services, which the daemons watch
    dns/, etc/      what the pods need (`userproxy.lab.pods.content`)
    host1.sock      the admin socket of the daemon on host1
    state/host1/    what that daemon keeps over restarts
    logs/NAME.log   stdout and stderr of each process
    pids/NAME       its pid
```
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from userproxy.lab import network, processes
from userproxy.lab.claim import Claim
from userproxy.lab.network import LabError
from userproxy.lab.pods import content
from userproxy.lab.topology import REFERENCE, Deployment, manifest_name, manifests
from userproxy.model.service import Path as Mode
from userproxy.ops.client import AdminClient, AdminError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from userproxy.lab.processes import Process
    from userproxy.lab.topology import Pod

DEFAULT_NAME = "userproxy"
BASE_DIRECTORY = Path("/run/userproxy/lab")
PORT_RANGE = "10400-18399"

ORPHAN_SECONDS = "10"
"""How long the workers of a daemon that was killed go on: long enough for a new one to take over."""
START_SECONDS = 15.0
"""How long a process of the lab may take until it serves, on a machine that has other things to do."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class Lab:
    """The reference deployment, up as long as the context lasts.

    ```
    with Lab("mine") as lab:
        lab.exec("client", "curl", "-s", "http://10.3.241.152")
        lab.rows("host1", "connections")
    ```

    Attributes:
        name: its namespaces are called `NAME-MEMBER`.
        deployment: what it consists of.
        mode: how the daemons' Services travel that choose no path.
        directory: everything that belongs to it.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        *,
        daemons: bool = True,
        tied: bool = True,
        deployment: Deployment = REFERENCE,
        mode: Mode = Mode.REDIRECT_TO_HOST,
    ) -> None:
        """Describe a lab; `up` (or entering the context) makes it.

        Args:
            name: several labs live side by side under different names.
            daemons: whether `up` starts a daemon on each host.
            tied: its processes die with the thread that brings it up. Otherwise they go on until `down`.
            deployment: what to build.
            mode: of its daemons.

        Raises:
            LabError: the name cannot be one.
        """
        if not _NAME.fullmatch(name):
            raise LabError(f"{name!r} cannot name a lab: lower-case letters, digits and dashes, at most 40")
        self.name = name
        self.deployment = deployment
        self.mode = mode
        self.directory = BASE_DIRECTORY / name
        self._daemons = daemons
        self._tied = tied
        self._processes: dict[str, Process] = {}
        self._claim = Claim(self.directory, self.namespaces)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def manifests(self) -> Path:
        """The directory of manifests that the daemons watch."""
        return self.directory / "manifests"

    @property
    def logs(self) -> Path:
        """The directory of what each process printed."""
        return self.directory / "logs"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The names of all its namespaces, also while it is down."""
        return tuple(map(self.namespace, self.deployment.members))

    @property
    def processes(self) -> dict[str, Process]:
        """Those started by this object that have not been taken down with the lab, by name."""
        return dict(self._processes)

    def namespace(self, member: str) -> str:
        """The name of a member's namespace.

        Raises:
            LabError: there is no such member.
        """
        if member not in self.deployment.members:
            raise LabError(f"{member!r} is not in the lab; there are {', '.join(self.deployment.members)}")
        return f"{self.name}-{member}"

    def admin_socket(self, host: str) -> Path:
        """Where the daemon on a host listens for `userproxy connections` and the like."""
        return self.directory / f"{self.deployment.host(host).name}.sock"

    def state(self, host: str) -> Path:
        """The directory that the daemon on a host keeps over restarts."""
        return self.directory / "state" / self.deployment.host(host).name

    def up(self) -> None:
        """Make the namespaces, start the pods' servers and the daemons, and wait until they serve.

        What a crashed lab of the same name left is removed first.

        Raises:
            LabError: the machine cannot carry a lab, one of this name is up, or something did not come up;
                in the last case everything has been taken down again.
        """
        content.preflight(self.deployment)
        if self._claim.holds():
            raise LabError(
                f"lab {self.name} is up already: `userproxy lab down --name {self.name}`, or another --name"
            )
        self.down()
        self._claim.take()
        try:
            self._build()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End every process in the lab's namespaces, delete these and the lab's directory. Idempotent.

        Raises:
            LabError: something refuses to go.
        """
        with processes.undisturbed():
            processes.end_all(self.namespaces)
            for process in self._processes.values():
                process.wait(5.0)
            self._processes.clear()
            network.destroy(self.namespaces)
            shutil.rmtree(self.directory, ignore_errors=True)
            for parent in (BASE_DIRECTORY, BASE_DIRECTORY.parent):
                with contextlib.suppress(OSError):  # another lab or daemon lives there, or it is gone
                    parent.rmdir()

    def is_up(self) -> bool:
        """Whether every namespace exists, and not only partly or as the remains of a crash."""
        return self._claim.holds() and len(network.existing(self.namespaces)) == len(self.namespaces)

    def command(self, member: str, *argv: str) -> list[str]:
        """The argument vector that runs a program in a member's namespace, in a pod with its own /etc."""
        inside = content.command(self.deployment, member, self.directory, *argv)
        return ["ip", "netns", "exec", self.namespace(member), *inside]

    def environment(self, member: str) -> dict[str, str]:
        """Of what runs in a member: ours, `userproxy` on PATH, and on a host the socket of its daemon."""
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        found = {**os.environ, "PATH": path}
        found.pop("USERPROXY_ADMIN_SOCKET", None)
        if member in (host.name for host in self.deployment.hosts):
            found["USERPROXY_ADMIN_SOCKET"] = str(self.admin_socket(member))
        return found

    def exec(
        self, member: str, *argv: str, check: bool = True, timeout: float = 30.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a member's namespace to its end.

        Raises:
            LabError: it took longer than `timeout` seconds, or failed while `check` is set.
        """
        try:
            done = processes.run(self.command(member, *argv), self.environment(member), stdin, timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"`{' '.join(argv)}` on {member}: not done after {timeout:g} s") from None
        if check and done.returncode:
            said = " ".join(done.stderr.split()) or "nothing on stderr"
            raise LabError(f"`{' '.join(argv)}` on {member}: exit code {done.returncode}, {said}")
        return done

    def start(self, name: str, member: str, *argv: str) -> Process:
        """Start a program in a member's namespace; logged to `logs/NAME.log`. The lab's end is its own.

        Raises:
            LabError: a process of that name runs already, or it cannot be started.
        """
        running = self._processes.get(name)
        if running and running.alive:
            raise LabError(f"{name} runs already (pid {running.pid})")
        process = processes.start(
            name,
            self.command(member, *argv),
            log=self.logs / f"{name}.log",
            environment=self.environment(member),
            tied=self._tied,
        )
        self._processes[name] = process
        (self.directory / "pids" / name).write_text(f"{process.pid}\n")
        return process

    def start_daemon(
        self,
        host: str,
        *extra: str,
        wait: bool = True,
        source: Sequence[str] = (),
        under: Sequence[str] = (),
        name: str = "",
    ) -> Process:
        """Start `userproxy run` on a host.

        Args:
            host: its name.
            extra: further arguments; they come last, so they win.
            wait: return only once it serves every Service of its manifests.
            source: the arguments that say where its Services come from, if not from the lab's manifests.
            under: the command that runs it, such as `prlimit` with its options.
            name: of the process, where a host has two daemons; the other methods mean the one without.

        Raises:
            LabError: one runs there already, or it does not serve in time.
        """
        here = self.deployment.host(host)
        process = self.start(
            name or f"{host}-daemon",
            host,
            *(*under, "userproxy", "run"),
            *(source or ("--manifests", str(self.manifests))),
            *("--node-name", here.name, "--host-ip", here.ip),
            *("--admin-socket", str(self.admin_socket(host)), "--state-dir", str(self.state(host))),
            *("--mode", self.mode.value, "--port-range", PORT_RANGE),
            *("--orphan-seconds", ORPHAN_SECONDS),
            *extra,
        )
        if wait:
            self.wait_for_daemon(host)
        return process

    def daemon(self, host: str) -> Process:
        """The daemon that was last started on a host.

        Raises:
            LabError: none was.
        """
        try:
            return self._processes[f"{host}-daemon"]
        except KeyError:
            raise LabError(f"no daemon was started on {host}") from None

    def wait_for_daemon(self, host: str, timeout: float = START_SECONDS) -> None:
        """Wait until the daemon on a host has its manifests and serves the deployment's Services in them.

        Raises:
            LabError: it ended, or is not ready after `timeout` seconds; with the last line it logged.
        """
        daemon = self.daemon(host)
        due = {
            str(name)
            for service in self.deployment.services
            if (self.manifests / manifest_name(service)).exists()
            for name in service.port_names
        }

        def serves() -> bool:
            if not daemon.alive:
                raise LabError(f"the daemon on {host} ended with exit code {daemon.exit_code}")
            with contextlib.suppress(AdminError), AdminClient(self.admin_socket(host)) as admin:
                return admin.status().source.synced and due <= {row.service for row in admin.services()}
            return False

        try:
            processes.wait_until(f"the daemon on {host} serves", serves, timeout)
        except LabError as error:
            raise LabError(f"{error}; its log ends: {daemon.last_line()}") from None

    def rows(self, host: str, what: str, *options: str) -> list[dict[str, Any]]:
        """The rows of `userproxy connections|services|backends -o json`, asked of the daemon on a host.

        Raises:
            LabError: it does not answer.
        """
        rows: list[dict[str, Any]] = json.loads(self.userproxy(host, what, "-o", "json", *options))
        return rows

    def userproxy(self, host: str, *argv: str) -> str:
        """The stdout of a `userproxy` command, asked of the daemon on a host.

        Raises:
            LabError: it failed; with what it said.
        """
        return self.exec(host, "userproxy", *argv).stdout

    def write_manifest(self, name: str, text: str) -> None:
        """Put a file among the manifests, or replace it, at once and whole, as an editor would."""
        whole = self.manifests / f".{name}.new"
        whole.write_text(text)
        whole.replace(self.manifests / name)

    def remove_manifest(self, name: str) -> None:
        """Take a file from the manifests."""
        (self.manifests / name).unlink()

    def start_server(self, pod: Pod) -> Process:
        """Start the server of a pod, under the pod's name.

        Raises:
            LabError: it runs already, or it cannot be started.
        """
        return self.start(pod.name, pod.name, *content.server(pod, self.directory))

    def wait_for_server(self, pod: Pod) -> None:
        """Wait until the server of a pod listens.

        Raises:
            LabError: it ended, or does not listen after 15 seconds.
        """
        listens = partial(self._processes[pod.name].listens, pod.address.port)
        processes.wait_until(f"{pod.name} serves", listens, START_SECONDS)

    def _build(self) -> None:
        for each in (self.manifests, self.logs, self.directory / "pids", self.directory / "state"):
            each.mkdir()
        for name, text in manifests(self.deployment).items():
            self.write_manifest(name, text)
        content.write(self.deployment, self.directory)
        with processes.undisturbed():  # what makes them would go on while they are taken down
            network.create(self.deployment, self.namespace)
        servers = [pod for pod in self.deployment.pods if pod.port is not None]
        for pod in servers:
            self.start_server(pod)
        if self._daemons:
            for host in self.deployment.hosts:
                self.start_daemon(host.name, wait=False)
            for host in self.deployment.hosts:
                self.wait_for_daemon(host.name)
        for pod in servers:
            self.wait_for_server(pod)
        links_carry = partial(network.carries, self.namespaces)
        processes.wait_until(f"the links of lab {self.name} carry", links_carry, START_SECONDS)
        if not self._tied:
            self._claim.leave()
