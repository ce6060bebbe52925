"""Other relays: HAProxy and nginx, behind rules of the same shape as userproxy's own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from userproxy.bench.paths.base import Path, first_line
from userproxy.bench.services import BULK, DNS, ECHO, HOST, HTTP, MEASURED
from userproxy.bench.site import find_program
from userproxy.lab.processes import wait_until
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.bench.services import Service

LISTENERS = {
    service.name: Address(HOST.ip, 10400 + index) for index, service in enumerate((HTTP, BULK, DNS, ECHO))
}
"""Where a relay listens for each Service: the host ports that userproxy takes for its first ones."""

BACKLOG = 16384
MAX_CONNECTIONS = 7500
"""Of HAProxy: with its pipes, 8,000 would not start under a limit of 20,000 files."""


class RelayPath(Path):
    """A proxy that knows nothing of Services: the benchmark tells it its backends, and writes the rules."""

    relays = True
    program: str

    def start(self) -> None:
        """Write the rules and the configuration, and start the program."""
        rules = self.site.write("redirect.nft", redirect(self.carried()))
        self.site.lab.exec(HOST.name, find_program("nft"), "-f", rules)
        argv = self.command(find_program(self.program))
        self._process = process = self.site.start(self.name, *argv)
        port = LISTENERS[HTTP.name].port
        wait_until(f"{self.program} serves", lambda: process.listens(port), 15.0)
        self.site.await_services([self.http])

    def carried(self) -> list[Service]:
        """The measured Services, without those that it cannot carry."""
        return [service for service in MEASURED if self.datagrams or service.protocol == "TCP"]

    @abstractmethod
    def command(self, program: str) -> tuple[str, ...]:
        """Write the configuration; returns the argument vector."""


class HaproxyPath(RelayPath):
    """HAProxy in TCP mode, splicing where it sees fit."""

    name = "haproxy"
    title = "HAProxy"
    note = "mode tcp, option splice-auto, one thread, behind the same rules as userproxy"
    program = "haproxy"
    datagrams = False

    def version(self) -> str:
        """Of HAProxy."""
        return " ".join(first_line(find_program("haproxy"), "-v").split()[:3])

    def command(self, program: str) -> tuple[str, ...]:
        """In the foreground."""
        return program, "-db", "-f", self.site.write("haproxy.cfg", haproxy_config(self.carried()))


class NginxPath(RelayPath):
    """The stream module of nginx."""

    name = "nginx"
    title = "nginx stream"
    note = "one worker, behind the same rules as userproxy"
    program = "nginx"

    def version(self) -> str:
        """Of nginx."""
        return first_line(find_program("nginx"), "-v").removeprefix("nginx version: ").replace("/", " ")

    def command(self, program: str) -> tuple[str, ...]:
        """In the foreground."""
        directory = str(self.site.lab.directory)
        config = self.site.write("stream.conf", nginx_config(self.carried(), directory))
        return program, "-e", "stderr", "-p", directory, "-c", config


def redirect(services: Iterable[Service]) -> str:
    """The nftables that lead each Service to its relay, for `nft -f`. Pure.

    The hooks, their priorities and the lookups are those of userproxy's own table, so that a connection to
    any relay passes as many of them.
    """
    found = [(each.frontend, each.protocol.lower(), LISTENERS[each.name]) for each in services]
    captured = ", ".join(f"{at.ip} . {how} . {at.port} : {to.ip} . {to.port}" for at, how, to in found)
    guarded = ", ".join(f"{to.ip} . {how} . {to.port}" for _, how, to in found)
    key = "ip daddr . meta l4proto . th dport"
    return f"""\
table inet relay
delete table inet relay
table inet relay {{
    set protocols {{ type inet_proto; elements = {{ tcp, udp }}; }}
    set refused4 {{ type ipv4_addr . inet_proto . inet_service; }}
    set dropped4 {{ type ipv4_addr . inet_proto . inet_service; }}
    set guarded4 {{ type ipv4_addr . inet_proto . inet_service; elements = {{ {guarded} }}; }}
    set hairpins4 {{ type ipv4_addr . ipv4_addr; }}
    map listeners4 {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = {{ {captured} }}
    }}
    chain deny {{
        meta l4proto @protocols {key} @refused4 reject
        meta l4proto @protocols {key} @dropped4 drop
    }}
    chain capture {{ meta l4proto @protocols dnat ip to {key} map @listeners4; }}
    chain deny-prerouting {{
        type filter hook prerouting priority dstnat - 10;
        ct state new meta nfproto ipv4 meta l4proto @protocols jump deny
    }}
    chain deny-output {{
        type filter hook output priority -110;
        ct state new meta nfproto ipv4 meta l4proto @protocols jump deny
    }}
    chain capture-prerouting {{
        type nat hook prerouting priority dstnat;
        meta nfproto ipv4 meta l4proto @protocols jump capture
    }}
    chain capture-output {{
        type nat hook output priority -100;
        meta nfproto ipv4 meta l4proto @protocols jump capture
    }}
    chain guard-input {{
        type filter hook input priority filter;
        ct state established,related accept
        ct status dnat accept
        meta l4proto @protocols {key} @guarded4 reject
    }}
    chain hairpin-postrouting {{
        type nat hook postrouting priority srcnat;
        ct status dnat ip saddr . ip daddr @hairpins4 masquerade
    }}
}}
"""


def haproxy_config(services: Iterable[Service]) -> str:
    """One `listen` for each TCP Service. Pure."""
    parts = [
        f"""\
global
    nbthread 1
    maxconn {MAX_CONNECTIONS}
defaults
    mode tcp
    option splice-auto
    maxconn {MAX_CONNECTIONS}
    balance roundrobin
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""
    ]
    for service in (each for each in services if each.protocol == "TCP"):
        servers = (f"    server {pod.name} {pod.ip}:{service.target}\n" for pod in service.pods)
        bind = f"    bind {LISTENERS[service.name]} backlog {BACKLOG}\n"
        parts.append(f"listen {service.name}\n{bind}{''.join(servers)}")
    return "".join(parts)


def nginx_config(services: Iterable[Service], directory: str) -> str:
    """One `upstream` and one `server` for each Service; `directory` is for its pid file. Pure.

    A client of a UDP Service gets one datagram back for each that it has sent, as with DNS.
    """
    blocks = []
    for service in services:
        servers = " ".join(f"server {pod.ip}:{service.target};" for pod in service.pods)
        blocks.append(f"    upstream {service.name} {{ {servers} }}\n")
        if service.protocol == "UDP":
            how, last = (
                "udp",
                "proxy_timeout 30s;" if service is ECHO else "proxy_responses 1; proxy_timeout 5s;",
            )
        else:
            how, last = f"backlog={BACKLOG}", "proxy_timeout 1h;"
        listen = f"listen {LISTENERS[service.name]} {how};"
        blocks.append(f"    server {{ {listen} proxy_pass {service.name}; {last} }}\n")
    return f"""\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 18000; }}
stream {{
{"".join(blocks)}}}
"""
