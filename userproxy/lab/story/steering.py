"""Where userspace is met on the path `steered`, and where it is not met again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.lab.evidence import queued

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab
    from userproxy.lab.story.page import Page
    from userproxy.lab.topology import Pod, Service

_REQUESTS = 5


def tell(lab: Lab, page: Page, client: Pod, service: Service) -> None:
    """Several requests on one connection: its first packet asks userspace, and no other one does.

    Args:
        lab: that is up, in the mode `steered`.
        page: to write on.
        client: the pod that asks.
        service: that is asked, by its IP: no name is looked up.
    """
    host = lab.deployment.host_of(client)
    namespace, url = lab.namespace(host.name), f"http://{service.frontend}".removesuffix(":80")
    page.heading("Userspace chooses once for each connection, and is not met again")
    page.prompt(client.name, f"curl {' '.join([url] * _REQUESTS)}")
    before = queued(namespace)
    said = lab.exec(client.name, "curl", "-sS", "--max-time", "5", *[url] * _REQUESTS).stdout.splitlines()
    asked = queued(namespace) - before
    source = f"the queue of {host.name}, as the kernel counts"
    page.hop("client", f"{_REQUESTS} requests on one connection to {service.frontend}", "curl keeps it open")
    page.hop("userproxy", f"was asked {asked} time{'s' * (asked != 1)}, and chose", source)
    page.hop("netfilter", "carried every byte, with the client's own address", "what the pod has answered")
    pods = {line.partition(" ")[0] for line in said}
    one = len(said) == _REQUESTS and len(set(said)) == 1
    page.fact(f"{' '.join(pods) or 'a pod'} has answered all of them", one, "; ".join(said) or "nobody did")
    page.fact("userspace was asked once", asked == 1, f"it was asked {asked} times")
