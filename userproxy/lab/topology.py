"""The reference deployment as data: which pods, hosts and Services there are, and their manifests. Pure.

```
    server1 10.0.1.2   client 10.0.1.3                    server2 10.0.2.2
            |                 |                                   |
            +-- cbr0 10.0.1.1 +                             cbr0 10.0.2.1
                      |                                           |
               host1 10.100.0.2                            host2 10.100.0.3
                      |                                           |
                      +----------- gateway 10.100.0.1 ------------+
                            10.0.1.0/24 via host1
                            10.0.2.0/24 via host2
```

With cluster DNS there is one more pod on each host: dns1 10.0.1.4 and dns2 10.0.2.4.

Everybody has an IPv6 address too, which reads like the other: fd00:10:0:1::2 is server1.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.model.address import Address
from userproxy.model.service import ServicePortName


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod: a namespace of its own with `eth0` on its host's bridge.

    Attributes:
        name: also the plain name of its namespace.
        ip: in its host's pod network.
        ip6: likewise of IPv6; empty for none.
        port: that its server listens on; None for a pod that only asks.
        serves: what its server speaks.
    """

    name: str
    ip: str
    ip6: str = ""
    port: int | None = None
    serves: Literal["http", "dns"] = "http"

    @property
    def address(self) -> Address:
        """Where its server answers.

        Raises:
            ValueError: the pod has no server.
        """
        if self.port is None:
            raise ValueError(f"pod {self.name} serves nothing")
        return Address(self.ip, self.port)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A Kubernetes node: `eth0` to the gateway, `cbr0` to its pods, one daemon.

    Attributes:
        name: also the Kubernetes node's name and the plain name of its namespace.
        ip: on the hosts' network.
        pod_network: in CIDR form; its first address is the bridge's.
        ip6: as `ip`, of IPv6; empty for none.
        pod_network6: likewise.
        pods: that it carries.
    """

    name: str
    ip: str
    pod_network: str
    pods: tuple[Pod, ...]
    ip6: str = ""
    pod_network6: str = ""

    @property
    def bridge_ip(self) -> str:
        """The address of `cbr0`, which is its pods' default gateway."""
        return str(ipaddress.ip_network(self.pod_network)[1])

    @property
    def pod_networks(self) -> tuple[str, ...]:
        """Those of both families, as far as it has them."""
        return tuple(filter(None, (self.pod_network, self.pod_network6)))

    @property
    def bridge_ip6(self) -> str:
        """The same of IPv6; empty if there is none."""
        return str(ipaddress.ip_network(self.pod_network6)[1]) if self.pod_network6 else ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A Service, and the pods behind it.

    Attributes:
        namespace: in Kubernetes.
        name: in that namespace.
        ip: its cluster IP.
        ports: at least one, each with the port behind it in the pods.
        backends: its pods.
    """

    namespace: str = objects.NAMESPACE
    name: str
    ip: str
    ports: tuple[Port, ...]
    backends: tuple[Pod, ...]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def port_names(self) -> tuple[ServicePortName, ...]:
        """How the daemons call it, port by port."""
        return tuple(ServicePortName(self.namespace, self.name, port.name) for port in self.ports)

    @property
    def frontend(self) -> Address:
        """Its cluster IP with the first of its ports."""
        return Address(self.ip, self.ports[0].port)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a lab consists of.

    Attributes:
        gateway: the plain name of the namespace that routes between the hosts.
        gateway_ip: its address on `host_network`.
        host_network: in CIDR form.
        service_network: in CIDR form; on no interface and in no route.
        hosts: with the pods they carry.
        services: that the daemons serve.
        gateway_ip6: as `gateway_ip`, of IPv6; empty for none.
        host_network6: likewise.
        service_network6: likewise.
    """

    gateway: str
    gateway_ip: str
    host_network: str
    service_network: str
    hosts: tuple[Host, ...]
    services: tuple[Service, ...]
    gateway_ip6: str = ""
    host_network6: str = ""
    service_network6: str = ""

    @property
    def pods(self) -> tuple[Pod, ...]:
        """Every pod, host by host."""
        return tuple(pod for host in self.hosts for pod in host.pods)

    @property
    def dns(self) -> Service | None:
        """The Service that its pods ask for names, if it has one."""
        return next((each for each in self.services if each.backends[0].serves == "dns"), None)

    @property
    def members(self) -> tuple[str, ...]:
        """The plain name of every namespace: the gateway's, the hosts', the pods'."""
        return (self.gateway, *(host.name for host in self.hosts), *(pod.name for pod in self.pods))

    def host(self, name: str) -> Host:
        """The host of that name.

        Raises:
            ValueError: there is none; the message lists those there are.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise ValueError(f"{name!r} is no host of the lab; there are {', '.join(h.name for h in self.hosts)}")

    def host_of(self, pod: Pod) -> Host:
        """The host that carries a pod."""
        return next(host for host in self.hosts if pod in host.pods)


SERVER1 = Pod(name="server1", ip="10.0.1.2", ip6="fd00:10:0:1::2", port=8080)
SERVER2 = Pod(name="server2", ip="10.0.2.2", ip6="fd00:10:0:2::2", port=8080)
CLIENT = Pod(name="client", ip="10.0.1.3", ip6="fd00:10:0:1::3")
HOST1 = Host(
    name="host1",
    ip="10.100.0.2",
    ip6="fd00:10:100::2",
    pod_network="10.0.1.0/24",
    pod_network6="fd00:10:0:1::/64",
    pods=(SERVER1, CLIENT),
)
HOST2 = Host(
    name="host2",
    ip="10.100.0.3",
    ip6="fd00:10:100::3",
    pod_network="10.0.2.0/24",
    pod_network6="fd00:10:0:2::/64",
    pods=(SERVER2,),
)
SERVER_SERVICE = Service(
    name="server-service", ip="10.3.241.152", ports=(Port(80, 8080),), backends=(SERVER1, SERVER2)
)

REFERENCE = Deployment(
    gateway="gateway",
    gateway_ip="10.100.0.1",
    host_network="10.100.0.0/24",
    service_network="10.3.240.0/20",
    gateway_ip6="fd00:10:100::1",
    host_network6="fd00:10:100::/64",
    service_network6="fd00:10:3::/48",
    hosts=(HOST1, HOST2),
    services=(SERVER_SERVICE,),
)
"""The reference deployment, as the README tables it."""

DNS1 = Pod(name="dns1", ip="10.0.1.4", ip6="fd00:10:0:1::4", port=53, serves="dns")
DNS2 = Pod(name="dns2", ip="10.0.2.4", ip6="fd00:10:0:2::4", port=53, serves="dns")
KUBE_DNS = Service(
    namespace="kube-system",
    name="kube-dns",
    ip="10.3.240.10",
    ports=(Port(53, name="dns", protocol="UDP"), Port(53, name="dns-tcp")),
    backends=(DNS1, DNS2),
)

REFERENCE_WITH_DNS = msgspec.structs.replace(
    REFERENCE,
    hosts=tuple(
        msgspec.structs.replace(host, pods=(*host.pods, pod))
        for host, pod in zip(REFERENCE.hosts, KUBE_DNS.backends, strict=True)
    ),
    services=(*REFERENCE.services, KUBE_DNS),
)
"""The same with cluster DNS, as `userproxy lab` brings it up."""


def manifests(deployment: Deployment) -> dict[str, str]:
    """The Kubernetes objects of every Service, as file name -> text (JSON, which is YAML too)."""
    return {
        manifest_name(service): objects.manifest(api_objects(deployment, service))
        for service in deployment.services
    }


def manifest_name(service: Service) -> str:
    """The file with a Service's manifest."""
    return f"{service.name}.yaml"


def api_objects(deployment: Deployment, service: Service) -> tuple[objects.Object, objects.Object]:
    """A Service as the API has it, and the EndpointSlice of its pods."""
    metadata: objects.Metadata = {"namespace": service.namespace}
    endpoints = [objects.endpoint(pod.ip, deployment.host_of(pod).name) for pod in service.backends]
    return (
        objects.service(service.name, [service.ip], service.ports, metadata=metadata),
        objects.endpoint_slice(
            f"{service.name}-pods", service.name, service.ports, endpoints, metadata=metadata
        ),
    )
