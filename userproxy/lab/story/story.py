"""One telling, from the first packet to a machine that is as it was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from userproxy.lab import network, processes
from userproxy.lab.deployment import Lab
from userproxy.lab.evidence import Machine, holders
from userproxy.lab.network import LabError
from userproxy.lab.story import pictures, steering
from userproxy.lab.story.death import Death
from userproxy.lab.story.hops import Hops
from userproxy.lab.story.page import Page
from userproxy.lab.topology import CLIENT, REFERENCE_WITH_DNS
from userproxy.model.service import Path as Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from userproxy.lab.processes import Process
    from userproxy.lab.topology import Service

HOLD_SECONDS = 6
"""How long the request that is looked at is held open by the pod."""
_STEPPED_SECONDS = 3600
"""The same, if somebody looks at it step by step; the client then hangs up first."""

_WIDTH = 104  # where the output is no terminal
_FEWEST_REQUESTS, _MOST_REQUESTS = 6, 24


class Staging(NamedTuple):
    """How the story is told.

    Attributes:
        mode: of the lab's daemons.
        kill_a_pod: whether one of the Service's pods dies in it.
        pause: called before each step, to wait for the reader; None: it goes on by itself.
    """

    mode: Mode = Mode.REDIRECT_TO_HOST
    kill_a_pod: bool = False
    pause: Callable[[], object] | None = None


_UNINTERRUPTED = Staging()


def tell(name: str, staging: Staging, console: Console | None = None) -> bool:
    """Bring the reference deployment up, tell the story, and take it down.

    Args:
        name: of the lab.
        staging: how it is told.
        console: where to tell it; stdout if None.

    Returns:
        Whether everything that was shown is so.

    Raises:
        LabError: the lab did not come up, or something in it could not be asked; it is down again.
    """
    network.preflight(["curl"])
    lab = Lab(name, deployment=REFERENCE_WITH_DNS, mode=staging.mode)
    story = Story(lab, console or _console(), staging)
    story.tell()
    return story.held


class Story:
    """One telling.

    Args:
        lab: that is down, with cluster DNS.
        console: where it is told.
        staging: how; the lab has its mode.
    """

    def __init__(self, lab: Lab, console: Console, staging: Staging = _UNINTERRUPTED) -> None:
        self._lab = lab
        self._page = Page(console, staging.pause)
        self._kill_a_pod = staging.kill_a_pod
        self._busy = ""  # the pod of the request that is held open
        self._stepped = staging.pause is not None
        self._service: Service = lab.deployment.services[0]
        self._client = CLIENT
        self._host = lab.deployment.host_of(CLIENT)
        self._hops = Hops(lab, self._page, CLIENT)
        self._url = f"http://{self._service.name}"

    @property
    def held(self) -> bool:
        """Whether every fact so far was so."""
        return self._page.held

    def tell(self) -> None:
        """The whole story."""
        machine = Machine(self._lab)
        with self._lab:
            self._the_deployment()
            held_open = self._one_request()
            self._spread()
            if self._lab.mode is Mode.STEERED:
                steering.tell(self._lab, self._page, self._client, self._service)
            self._from_the_hosts()
            if self._kill_a_pod:
                death = Death(self._lab, self._page, self._client, self._service)
                death.tell(busy=self._busy)
            self._the_end_of_the_request(held_open)
            count = machine.note_processes()
        self._page.heading("The machine is as it was")
        for fact, reason in machine.left_overs().items():
            self._page.fact(fact, not reason, reason)
        self._page.say(f"{len(self._lab.namespaces)} namespaces and {count} processes are gone.")

    def _the_deployment(self) -> None:
        lab, page = self._lab, self._page
        page.heading(f"The reference deployment is up, in network namespaces of its own: {lab.mode.value}")
        page.show(pictures.diagram(lab.deployment))
        page.show(pictures.table(lab.deployment))
        for service in lab.deployment.services:
            nowhere = holders(lab.namespaces, service.ip)
            claim = f"{service.ip} is on no interface anywhere: nothing can listen on it"
            page.fact(claim, not nowhere, f"it is an address of {', '.join(nowhere)}")

    def _one_request(self) -> Process:
        page, path = self._page, f"/hold/{_STEPPED_SECONDS if self._stepped else HOLD_SECONDS}"
        page.heading("One request, hop by hop, while it is held open")
        page.prompt(self._client.name, f"curl {self._url}{path}")
        held_open = self._lab.start("curl", self._client.name, "curl", "-sSN", f"{self._url}{path}")
        processes.wait_until("a pod answers the client", lambda: _answered(held_open), 10.0)
        said = held_open.output().splitlines()[0]
        if dns := self._lab.deployment.dns:
            self._hops.of_name(self._service, dns)
        rows = self._client_rows()
        page.fact("userproxy lists the connection", len(rows) == 1, f"it lists {len(rows)} of the client")
        if not rows:
            return held_open
        self._busy = rows[0]["backend"]
        self._hops.of_connection(self._service, rows[0], said)
        self._the_table(rows[0])
        return held_open

    def _the_table(self, row: dict[str, Any]) -> None:
        self._page.prompt(self._host.name, "userproxy connections")
        shown = self._lab.userproxy(self._host.name, "connections")
        self._page.show_text(shown)
        self._page.fact(
            "the table shows it, with its client and its pod",
            row["client"] in shown and row["backend"] in shown,
            f"{row['client']} or {row['backend']} is not in it",
        )

    def _spread(self) -> None:
        names = {pod.name for pod in self._service.backends}
        self._page.heading("Further requests are spread over the pods")
        self._page.prompt(self._client.name, f"curl {self._url}")
        seen: set[str] = set()
        failed: list[str] = []
        for count in range(_MOST_REQUESTS):
            if count >= _FEWEST_REQUESTS and seen >= names:
                break
            pod, reason = self._ask(self._client.name, self._url)
            seen |= {pod} - {""}
            failed += [reason] if reason else []
        self._page.fact("every request was answered", not failed, "; ".join(failed[:1]))
        missing = f"no answer of {', '.join(sorted(names - seen))}"
        self._page.fact(f"{' and '.join(sorted(names))} both answered", seen >= names, missing)

    def _from_the_hosts(self) -> None:
        self._page.heading(
            "The same Service from the hosts, each through its own userproxy; these know no names"
        )
        url = f"http://{self._service.frontend}".removesuffix(":80")
        for host in self._lab.deployment.hosts:
            self._page.prompt(host.name, f"curl {url}")
            _, reason = self._ask(host.name, url)
            self._page.fact(f"{host.name} reaches it", not reason, reason)

    def _the_end_of_the_request(self, held_open: Process) -> None:
        self._page.heading("The held request ends")
        if self._stepped:
            self._page.prompt(self._client.name, "kill %curl")
            held_open.stop()
        else:
            code = held_open.wait(HOLD_SECONDS + 10.0)
            lines = held_open.output().splitlines()
            whole = code == 0 and len(lines) > 1 and lines[-1] == "done"
            self._page.fact(
                "curl got the whole answer", whole, f"exit code {code}, {held_open.last_line()!r}"
            )
        gone = self._no_connection_within(2.0)
        self._page.fact(
            "userproxy lists no connection of the client any more", gone, "it still does after 2 s"
        )

    def _no_connection_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._client_rows():
            if time.monotonic() > deadline:
                return False
        return True

    def _ask(self, member: str, url: str) -> tuple[str, str]:
        """One request: the name of the pod that answered, and else why none did."""
        try:
            said = self._lab.exec(member, "curl", "-sS", "--max-time", "5", url).stdout.strip()
        except LabError as error:
            return "", str(error)
        self._page.say(f"  {said}")
        return said.partition(" ")[0], ""

    def _client_rows(self) -> list[dict[str, Any]]:
        """The client's connections to the Service, as the daemon on its host lists them."""
        wanted = ("--client", self._client.ip, "--service", str(self._service))
        return self._lab.rows(self._host.name, "connections", *wanted)


def _answered(curl: Process) -> bool:
    if "\n" in curl.output():
        return True
    if not curl.alive:
        raise LabError(f"curl ended with {curl.exit_code}: {curl.last_line()}")
    return False


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)
