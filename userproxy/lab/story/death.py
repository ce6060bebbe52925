"""A pod dies while a client asks on and on: what the client notices, and what userproxy does about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from userproxy.lab.network import LabError
from userproxy.model.service import Path as Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.lab.deployment import Lab
    from userproxy.lab.story.page import Page
    from userproxy.lab.topology import Pod, Service

_REQUESTS = 12
_PATIENCE_SECONDS = 20.0
_BETWEEN_SECONDS = 0.3


class Death:
    """One pod's death and return.

    Args:
        lab: that is up.
        page: to write on.
        client: the pod that asks.
        service: that is asked, with two pods or more.
    """

    def __init__(self, lab: Lab, page: Page, client: Pod, service: Service) -> None:
        self._lab = lab
        self._page = page
        self._client = client
        self._host = lab.deployment.host_of(client)
        self._service = service
        self._url = f"http://{service.name}"

    def tell(self, busy: str) -> None:
        """The whole of it; the pod is back in the end.

        Args:
            busy: the address of a pod that is spared.
        """
        pod = next(each for each in self._service.backends if str(each.address) != busy)
        others = [each for each in self._service.backends if each is not pod]
        page, chosen = self._page, self._lab.mode is not Mode.REDIRECT_TO_POD
        page.heading(f"{pod.name} dies, and nobody tells Kubernetes")
        server = self._lab.processes[pod.name]
        page.prompt(pod.name, f"kill -9 {server.pid}")
        server.kill()
        page.prompt(self._client.name, f"for i in $(seq {_REQUESTS}); do curl {self._url}; done")
        failed = sum(not self._ask() for _ in range(_REQUESTS))
        if chosen:
            claim = f"no client notices: {_REQUESTS} of {_REQUESTS} requests are answered"
            page.fact(claim, not failed, f"{failed} failed")
        else:
            page.say(f"  netfilter alone carries them: {failed} of {_REQUESTS} met the dead pod")
        out = self._comes_to("down", pod)
        page.prompt(self._host.name, "userproxy backends")
        page.show_text(self._lab.userproxy(self._host.name, "backends"))
        page.fact(f"userproxy has taken {pod.name} out", out, f"not within {_PATIENCE_SECONDS:g} s")
        failed = sum(not self._ask() for _ in range(_REQUESTS))
        names = " and ".join(each.name for each in others)
        page.fact(f"{names} answers alone", not failed, f"{failed} of {_REQUESTS} requests failed")

        page.heading(f"{pod.name} comes back")
        self._lab.start_server(pod)
        self._lab.wait_for_server(pod)
        page.fact("it is in again", self._comes_to("up", pod), f"not within {_PATIENCE_SECONDS:g} s")
        seen = self._within(lambda: self._ask() == pod.name)
        page.fact(f"{pod.name} answers", seen, f"not within {_PATIENCE_SECONDS:g} s")

    def _comes_to(self, state: str, pod: Pod) -> bool:
        """Whether the pod gets into a state, while the client asks on: checks follow traffic."""

        def is_so() -> bool:
            self._ask()
            return self._state(pod) == state

        return self._within(is_so)

    def _within(self, happens: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not happens():
            if time.monotonic() > deadline:
                return False
            time.sleep(_BETWEEN_SECONDS)
        return True

    def _state(self, pod: Pod) -> str:
        rows = self._lab.rows(self._host.name, "backends")
        mine = (row for row in rows if row["backend"] == str(pod.address))
        return next((row["state"] for row in mine if row["service"].startswith(str(self._service))), "")

    def _ask(self) -> str:
        """One request: the name of the pod that answered; empty if none did."""
        try:
            said = self._lab.exec(self._client.name, "curl", "-sS", "--max-time", "5", self._url).stdout
        except LabError:
            return ""
        return said.partition(" ")[0]
