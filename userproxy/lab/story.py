"""`userproxy lab run`: what happens to one request, told to a person while it happens.

Nothing here is said from memory. Each line with a mark is a fact that was looked up in this run: in the
daemon's own table, in the kernel's, or at the far end; ✗ and the reason where it is not so.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from userproxy.lab import network, processes, topology
from userproxy.lab.deployment import Lab
from userproxy.lab.evidence import Machine, holders, translations
from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from typing import Any

    from userproxy.lab.processes import Process
    from userproxy.lab.topology import Deployment, Host, Pod, Service

HOLD_SECONDS = 6
"""How long the request that is looked at is held open by the pod."""

_WIDTH = 104  # where the output is no terminal
_FEWEST_REQUESTS, _MOST_REQUESTS = 6, 24


def tell(name: str, console: Console | None = None) -> bool:
    """Bring the reference deployment up, tell the story, and take it down.

    Args:
        name: of the lab.
        console: where to tell it; stdout if None.

    Returns:
        Whether everything that was shown is so.

    Raises:
        LabError: the lab did not come up, or something in it could not be asked; it is down again.
    """
    network.preflight(["curl"])
    story = Story(Lab(name), console or _console())
    story.tell()
    return story.held


class Story:
    """One telling.

    Attributes:
        held: whether every fact so far was so.
    """

    def __init__(self, lab: Lab, console: Console) -> None:
        self.held = True
        self._lab = lab
        self._console = console
        self._service: Service = lab.deployment.services[0]
        self._client: Pod = topology.CLIENT
        self._host: Host = lab.deployment.host_of(self._client)
        self._url = f"http://{self._service.frontend}".removesuffix(":80")

    def tell(self) -> None:
        """The whole story."""
        machine = Machine(self._lab)
        with self._lab:
            self._the_deployment()
            held_open = self._one_request()
            self._spread()
            self._from_the_hosts()
            self._the_end_of_the_request(held_open)
            count = machine.note_processes()
        self._heading("The machine is as it was")
        for fact, reason in machine.left_overs().items():
            self._fact(fact, not reason, reason)
        self._say(f"{len(self._lab.namespaces)} namespaces and {count} processes are gone.")

    def _the_deployment(self) -> None:
        lab = self._lab
        self._heading("The reference deployment is up, in network namespaces of its own")
        self._console.print(Text(_diagram(lab.deployment)))
        self._console.print(_table(lab.deployment))
        nowhere = holders(lab.namespaces, self._service.frontend.ip)
        self._fact(
            f"{self._service.frontend.ip} is on no interface anywhere: nothing can listen on it",
            not nowhere,
            f"it is an address of {', '.join(nowhere)}",
        )

    def _one_request(self) -> Process:
        path = f"/hold/{HOLD_SECONDS}"
        self._heading("One request, hop by hop, while it is held open")
        self._command(self._client.name, f"curl {self._url}{path}")
        held_open = self._lab.start("curl", self._client.name, "curl", "-sSN", f"{self._url}{path}")
        processes.wait_until("a pod answers the client", lambda: _answered(held_open), 10.0)
        said = held_open.output().splitlines()[0]
        rows = self._client_rows()
        self._fact("userproxy lists the connection", len(rows) == 1, f"it lists {len(rows)} of the client")
        if not rows:
            return held_open
        self._hops(rows[0], said)
        self._command(self._host.name, "userproxy connections")
        shown = self._lab.userproxy(self._host.name, "connections")
        self._console.print(Text(shown.rstrip()), soft_wrap=True)
        self._fact(
            "the table shows it, with its client and its pod",
            rows[0]["client"] in shown and rows[0]["backend"] in shown,
            f"{rows[0]['client']} or {rows[0]['backend']} is not in it",
        )
        return held_open

    def _hops(self, row: dict[str, Any], said: str) -> None:
        service, host = self._service, self._host
        client, listener = row["client"], str(row["listener"])
        namespace = self._lab.namespace(host.name)
        entries = translations(namespace, self._client.ip, service.frontend)
        entry = next((each for each in entries if str(each.client) == client), None)
        self._hop("client", f"{client} -> {row['frontend']}", "what userproxy says was asked for")
        asked = f"{service.frontend} was asked for"
        self._fact(f"the address of {service.name}", row["frontend"] == str(service.frontend), asked)

        self._hop("netfilter", f"{client} -> {entry.actual if entry else '?'}", f"conntrack of {host.name}")
        at_home = listener.startswith(f"{host.ip}:")
        rewritten = entry is not None and str(entry.actual) == listener and at_home
        both = f"userproxy says {listener}, conntrack has {entry}"
        self._fact(f"the listener of userproxy on {host.name}", rewritten, both)

        source, backend = row["source"], row["backend"]
        self._hop("userproxy", f"{source} -> {backend}", "whom userproxy says it has dialled")
        pod = next((each.name for each in service.backends if str(each.address) == backend), "")
        self._fact(f"a pod of {service.name}", bool(pod), f"{backend} is not in its manifest")

        self._hop(pod or "pod", said, "what curl has received")
        due = f"{pod} answers {source}"
        self._fact("the same pod, and its peer is userproxy", said == due, f"{due!r} was due")

    def _spread(self) -> None:
        names = {pod.name for pod in self._service.backends}
        self._heading("Further requests are spread over the pods")
        self._command(self._client.name, f"curl {self._url}/")
        seen: set[str] = set()
        failed: list[str] = []
        for count in range(_MOST_REQUESTS):
            if count >= _FEWEST_REQUESTS and seen >= names:
                break
            pod, reason = self._ask(self._client.name)
            seen |= {pod} - {""}
            failed += [reason] if reason else []
        self._fact("every request was answered", not failed, "; ".join(failed[:1]))
        missing = f"no answer of {', '.join(sorted(names - seen))}"
        self._fact(f"{' and '.join(sorted(names))} both answered", seen >= names, missing)

    def _from_the_hosts(self) -> None:
        self._heading("The same Service from the hosts themselves, each through its own userproxy")
        for host in self._lab.deployment.hosts:
            self._command(host.name, f"curl {self._url}/")
            _, reason = self._ask(host.name)
            self._fact(f"{host.name} reaches it", not reason, reason)

    def _the_end_of_the_request(self, held_open: Process) -> None:
        self._heading("The held request ends")
        code = held_open.wait(HOLD_SECONDS + 10.0)
        lines = held_open.output().splitlines()
        whole = code == 0 and len(lines) > 1 and lines[-1] == "done"
        self._fact("curl got the whole answer", whole, f"exit code {code}, {held_open.last_line()!r}")
        gone = self._no_connection_within(2.0)
        self._fact("userproxy lists no connection of the client any more", gone, "it still does after 2 s")

    def _no_connection_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._client_rows():
            if time.monotonic() > deadline:
                return False
        return True

    def _ask(self, member: str) -> tuple[str, str]:
        """One request: the name of the pod that answered, and else why none did."""
        try:
            said = self._lab.exec(member, "curl", "-sS", "--max-time", "5", f"{self._url}/").stdout.strip()
        except LabError as error:
            return "", str(error)
        self._console.print(Text(f"      {said}"))
        return said.partition(" ")[0], ""

    def _client_rows(self) -> list[dict[str, Any]]:
        """The client's connections, as the daemon on its host lists them."""
        return self._lab.rows(self._host.name, "connections", "--client", self._client.ip)

    def _heading(self, text: str) -> None:
        self._console.print(Text(f"\n{text}", style="bold"))

    def _say(self, text: str) -> None:
        self._console.print(Text(f"    {text}"), soft_wrap=True)

    def _command(self, member: str, command: str) -> None:
        self._console.print(Text(f"  {member} $ {command}", style="cyan"), soft_wrap=True)

    def _hop(self, who: str, text: str, source: str) -> None:
        line = Text(f"    {who:<10} {text:<40} ").append(source, style="dim")
        self._console.print(line, soft_wrap=True)

    def _fact(self, claim: str, held: bool, reason: str) -> None:
        self.held = self.held and held
        mark = Text("    ✓ ", style="green") if held else Text("    ✗ ", style="bold red")
        self._console.print(mark.append(claim if held else f"{claim}: {reason}"), soft_wrap=True)


def _answered(curl: Process) -> bool:
    if "\n" in curl.output():
        return True
    if not curl.alive:
        raise LabError(f"curl ended with {curl.exit_code}: {curl.last_line()}")
    return False


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def _table(deployment: Deployment) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True)
    for header in ("what", "name", "ip", "port", "where"):
        table.add_column(header)
    for host in deployment.hosts:
        for pod in host.pods:
            table.add_row("pod", pod.name, pod.ip, str(pod.port or "-"), f"{host.name}, {host.pod_network}")
    for service in deployment.services:
        frontend = service.frontend
        pods = ", ".join(pod.name for pod in service.backends)
        table.add_row("service", str(service.name), frontend.ip, str(frontend.port), f"nowhere; for {pods}")
    for host in deployment.hosts:
        table.add_row("host", host.name, host.ip, "-", f"{deployment.host_network}, runs userproxy")
    return table


def _diagram(deployment: Deployment) -> str:
    """Each host with its pods, side by side, and the gateway below."""
    width = 36
    pods = ["  ".join(f"{pod.name} {pod.ip}" for pod in host.pods) for host in deployment.hosts]
    bridges = [f"cbr0 {host.bridge_ip}" for host in deployment.hosts]
    hosts = [f"{host.name} {host.ip} (userproxy)" for host in deployment.hosts]
    bars = ["|"] * len(hosts)
    rows = [pods, bars, bridges, hosts, bars]
    lines = ["  " + "".join(cell.center(width) for cell in row).rstrip() for row in rows]
    gateway = f" gateway {deployment.gateway_ip} ".center(width * (len(hosts) - 1) - 1, "-")
    lines.append("  " + " " * ((width - 1) // 2) + f"+{gateway}+")
    return "\n".join(lines)
