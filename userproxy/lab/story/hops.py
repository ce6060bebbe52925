"""The way of a question and of a connection from the client to the pods, on either path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.lab.evidence import translations
from userproxy.lab.network import LabError
from userproxy.lab.pods import nameserver
from userproxy.model.service import Path as Mode
from userproxy.model.service import Protocol

if TYPE_CHECKING:
    from typing import Any

    from userproxy.lab.deployment import Lab
    from userproxy.lab.evidence import Translation
    from userproxy.lab.story.page import Page
    from userproxy.lab.topology import Pod, Service


class Hops:
    """What becomes of the client's packets, as its host and the pods know it.

    Args:
        lab: that is up.
        page: to write on.
        client: the pod that asks.
    """

    def __init__(self, lab: Lab, page: Page, client: Pod) -> None:
        self._lab = lab
        self._page = page
        self._client = client
        self._host = lab.deployment.host_of(client)

    def of_name(self, service: Service, dns: Service) -> None:
        """The question for the address of a Service, that the client has just had answered."""
        page, conntrack = self._page, f"conntrack of {self._host.name}"
        entry = next(iter(self._translations(dns, Protocol.UDP)), None)
        page.hop("client", f"{entry.client} -> {entry.original}" if entry else "?", conntrack)
        asked = f"the address of {dns}, which is first asked for the name, by UDP"
        page.fact(asked, entry is not None, f"conntrack has no such packet of {self._client.ip}")
        if entry:
            page.hop("netfilter", f"{entry.client} -> {entry.actual}", conntrack)
            self._led_by_netfilter(dns, entry, self._listener(dns))
        try:
            told = self._lab.exec(self._client.name, "getent", "ahostsv4", service.name).stdout.split()
        except LabError as error:
            told = [str(error), "", ""]
        page.hop("dns", f"{' '.join(told[2:3])} is {told[0]}", f"what getent on {self._client.name} is told")
        whole = [service.ip, nameserver.domain(service)]
        page.fact(f"the address of {service}", [told[0], told[2]] == whole, f"{' '.join(whole)} was due")

    def of_connection(self, service: Service, row: dict[str, Any], said: str) -> None:
        """A connection that is established.

        Args:
            service: that it is for.
            row: of `userproxy connections`.
            said: the line with which the pod has answered.
        """
        page, client = self._page, row["client"]
        found = self._translations(service, Protocol.TCP)
        entry = next((each for each in found if str(each.client) == client), None)
        page.hop("client", f"{client} -> {row['frontend']}", "what userproxy says was asked for")
        asked = f"{service.frontend} was asked for"
        page.fact(f"the address of {service}", row["frontend"] == str(service.frontend), asked)

        if self._lab.mode is Mode.STEERED:
            chosen = self._pod(service, row["backend"]) or "nobody"
            said_by = "whom userproxy lists"
            page.hop("userproxy", f"has chosen {chosen} while the first packet waited", said_by)
        page.hop(
            "netfilter", f"{client} -> {entry.actual if entry else '?'}", f"conntrack of {self._host.name}"
        )
        self._led_by_netfilter(service, entry, row["listener"])
        if self._relayed:
            page.hop(
                "userproxy", f"{row['source']} -> {row['backend']}", "whom userproxy says it has dialled"
            )
            page.fact(f"a pod of {service}", *self._is_pod(service, row["backend"]))

        pod = self._pod(service, row["backend"])
        page.hop(pod or "pod", said, "what curl has received")
        due = f"{pod} answers {row['source']}"
        peer = "userproxy" if self._relayed else "the client itself"
        page.fact(f"the same pod, and its peer is {peer}", said == due, f"{due!r} was due")

    @property
    def _relayed(self) -> bool:
        return self._lab.mode is Mode.REDIRECT_TO_HOST

    def _led_by_netfilter(self, service: Service, entry: Translation | None, listener: str | None) -> None:
        actual = str(entry.actual) if entry else ""
        if not self._relayed:
            self._page.fact(f"a pod of {service}", *self._is_pod(service, actual))
            return
        at_home = (listener or "").startswith(f"{self._host.ip}:")
        both = f"userproxy says {listener}, conntrack has {entry}"
        claim = f"the listener of userproxy on {self._host.name}"
        self._page.fact(claim, actual == listener and at_home, both)

    def _is_pod(self, service: Service, address: str) -> tuple[bool, str]:
        return bool(self._pod(service, address)), f"{address or 'nobody'} is not in its manifest"

    def _pod(self, service: Service, address: str) -> str:
        """The name of the pod behind a Service with that address; empty if there is none."""
        return next((each.name for each in service.backends if str(each.address) == address), "")

    def _listener(self, service: Service) -> str | None:
        """Of the first port of a Service."""
        rows = self._lab.rows(self._host.name, "services")
        return next((row["listener"] for row in rows if row["service"] == str(service.port_names[0])), None)

    def _translations(self, service: Service, protocol: Protocol) -> list[Translation]:
        namespace = self._lab.namespace(self._host.name)
        return translations(namespace, self._client.ip, service.frontend, protocol)
