"""What load balancers and Prometheus see of a daemon that starts anew, and loses workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from integration.restart.load import Load, Transfer, has_started, workers
from integration.sockets import inside
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from collections.abc import Generator

    from userproxy.lab.deployment import Lab

FRONTEND = SERVER_SERVICE.frontend
HEALTHZ, METRICS = 10256, 10249
PATIENCE_SECONDS = 30.0


class Observer:
    """Asks for a page again and again, on a new connection each time, until the end of its block.

    Attributes:
        statuses: of the answers, as often as each came.
        failures: what happened to the others.
        slowest: seconds until an answer, at most.
    """

    def __init__(self, lab: Lab, port: int, path: str, pause: float) -> None:
        self.statuses: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.slowest = 0.0
        self._lab = lab
        self._port = port
        self._path = path
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __str__(self) -> str:
        return f"{dict(self.statuses)}, failed {dict(self.failures)}, slowest {self.slowest:.2f} s"

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """It goes on as long as the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def take(self, body: str) -> None:
        """Look at an answer."""

    def _watch(self) -> None:
        with inside(self._lab, "host1"):
            while not self._over.wait(self._pause):
                began = time.monotonic()
                try:
                    status, body = ask(self._port, self._path)
                except OSError as error:
                    self.failures[type(error).__name__] += 1
                    continue
                self.statuses[status] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                if status == "200":
                    self.take(body)


class Prometheus(Observer):
    """Scrapes `/metrics`.

    Attributes:
        counters: the last value of each series that must never run backwards.
        backwards: those that did, or vanished.
    """

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, METRICS, "/metrics", pause=0.05)
        self.counters: dict[str, float] = {}
        self.backwards: list[str] = []

    def take(self, body: str) -> None:
        """Compare with the last scrape."""
        now = {
            f"{sample.name}{sample.labels}": sample.value
            for family in text_string_to_metric_families(body)
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }
        for series, before in self.counters.items():
            after = now.get(series)
            if after is None or after < before:
                self.backwards.append(f"{series}: {before} -> {after}")
        self.counters = now

    def total(self, name: str) -> float:
        """Of a counter, over all of its labels."""
        return sum(value for series, value in self.counters.items() if series.startswith(f"{name}{{"))


def ask(port: int, path: str) -> tuple[str, str]:
    """The status and the body. Called inside of the host's namespace.

    Raises:
        OSError: no answer.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=20.0) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while part := client.recv(1 << 16):
            answer += part
    head, separator, body = answer.decode().partition("\r\n\r\n")
    if not separator:
        raise ConnectionResetError("the connection ended without an answer")
    return head.split()[1], body


def kill_one_worker(lab: Lab, prometheus: Prometheus) -> None:
    """After its last counts were seen; returns when it is replaced."""
    victim, seen = workers(lab)[0], prometheus.statuses["200"]
    wait_until("it was seen", lambda: prometheus.statuses["200"] > seen + 2, PATIENCE_SECONDS)
    os.kill(victim, signal.SIGKILL)
    wait_until(
        "it is replaced", lambda: victim not in workers(lab) and len(workers(lab)) == 2, PATIENCE_SECONDS
    )


def test_no_probe_is_refused_and_no_counter_runs_backwards(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--workers", "2")
    probes, prometheus = Observer(lab, HEALTHZ, "/healthz", pause=0.005), Prometheus(lab)
    load, transfer = Load(lab, FRONTEND, rate=200), Transfer(lab, FRONTEND)
    with load.going_on(), probes.watching(), prometheus.watching():
        for number in range(2, 5):
            transfer.some()  # so that earlier workers have something to do
            daemon.send(signal.SIGHUP)
            wait_until("it started anew", partial(has_started, lab, number), PATIENCE_SECONDS)
            lab.wait_for_daemon("host1")
        assert transfer.finish()
        wait_until("the earlier workers have ended", lambda: len(workers(lab)) == 2, PATIENCE_SECONDS)
        for _ in range(2):
            kill_one_worker(lab, prometheus)
    print(f"3 SIGHUP, 2 workers killed: {load}; /healthz {probes}; /metrics {prometheus}")
    assert probes.failures.total() == prometheus.failures.total() == 0
    assert set(probes.statuses) == {"200"} | set(probes.statuses) & {"503"}
    assert prometheus.backwards == []
    assert prometheus.total("userproxy_connections_opened_total") > load.rate
    assert prometheus.total("kubeproxy_proxy_healthz_total") > 0


def test_the_addresses_of_the_pages_may_change_with_the_configuration(lab: Lab) -> None:
    file = lab.directory / "config.yaml"
    file.write_text("healthz-bind-address: 127.0.0.1:10256\n")
    daemon = lab.start_daemon("host1", "--config", str(file))
    file.write_text("healthz-bind-address: 127.0.0.1:10257\nmetrics-bind-address: ''\n")
    daemon.send(signal.SIGHUP)
    wait_until("it started anew", partial(has_started, lab, 2), PATIENCE_SECONDS)
    wait_until("it answers at its new address", lambda: daemon.listens(10257), PATIENCE_SECONDS)
    with inside(lab, "host1"):
        assert ask(10257, "/livez")[0] == "200"
    assert not daemon.listens(HEALTHZ)
    assert not daemon.listens(METRICS)
