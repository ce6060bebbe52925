"""The daemon starts anew, a worker dies, the daemon stops: UDP clients keep their pods, and lose nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration.restart.load import has_started, starts, workers
from integration.udp.servers import ask, client, echoes, serving
from integration.udp.services import CLUSTER_IP, publish, published
from integration.udp.steady import Steady
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

PODS = ("server1", "server2")
PATIENCE_SECONDS = 15.0


@pytest.fixture
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment without daemons."""
    with Lab(f"{lab_name}-udpr", daemons=False) as made:
        yield made


@contextlib.contextmanager
def crowd(lab: Lab, count: int, rate: float = 50.0) -> Iterator[list[Steady]]:
    """Clients that ask all the time, each with a port of its own."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Steady(lab, "client", CLUSTER_IP, rate).going_on()) for _ in range(count)]


def peers(steady: Steady) -> set[tuple[str, str]]:
    """Which pods have answered, and whom they saw: one each, for a session that has gone on."""
    return set(steady.answers.values())


@pytest.mark.parametrize("count", [1, 2])
def test_over_sighup_a_session_keeps_its_pod_and_its_port_and_nothing_is_lost(lab: Lab, count: int) -> None:
    daemon = lab.start_daemon("host1", "--workers", str(count))
    with serving(lab, PODS), published(lab, "echo", PODS):
        first = workers(lab)
        with crowd(lab, 8) as clients:
            for number in range(2, 5):
                daemon.send(signal.SIGHUP)
                wait_until("it started anew", partial(has_started, lab, number), PATIENCE_SECONDS)
                lab.wait_for_daemon("host1")
                for each in clients:
                    each.some(5)
            wait_until("the earlier workers end", lambda: len(workers(lab)) == count, PATIENCE_SECONDS)
            rows = lab.rows("host1", "connections", "--service", "default/echo")
        sent = sum(each.sent for each in clients)
        lost = sum(len(each.lost) for each in clients)
        print(f"SIGHUP three times: {sent} datagrams of {len(clients)} clients, {lost} lost")
        assert lost == 0, [(each.name, each.sent, each.lost, each.refused) for each in clients]
        assert [len(peers(each)) for each in clients] == [1] * 8
        assert len(rows) == 8
        assert all(row["bytes_up"] > 100 and row["age_seconds"] > 1.0 for row in rows), "their figures go on"
        assert not set(first) & set(workers(lab))
    assert "Traceback" not in daemon.output()


def test_sessions_go_along_when_the_number_of_workers_changes(lab: Lab) -> None:
    file = lab.directory / "config.yaml"
    file.write_text("workers: 1\n")
    daemon = lab.start_daemon("host1", "--config", str(file))
    with serving(lab, PODS), published(lab, "echo", PODS), crowd(lab, 4) as clients:
        for count in (3, 2, 1):
            file.write_text(f"workers: {count}\n")
            before = starts(lab)
            daemon.send(signal.SIGHUP)
            wait_until("it started anew", partial(has_started, lab, before + 1), PATIENCE_SECONDS)
            wait_until("there are so many", lambda n=count: len(workers(lab)) == n, PATIENCE_SECONDS)  # type: ignore[misc]
            for each in clients:
                each.some(5)
    assert [each.lost for each in clients] == [[]] * 4
    assert [len(peers(each)) for each in clients] == [1] * 4


def test_a_worker_that_is_asked_to_leave_leaves_its_sessions_to_the_next_one(lab: Lab) -> None:
    lab.start_daemon("host1")
    with serving(lab, PODS), published(lab, "echo", PODS), crowd(lab, 4) as clients:
        (worker,) = workers(lab)
        os.kill(worker, signal.SIGTERM)
        wait_until("another one has its place", lambda: worker not in workers(lab), PATIENCE_SECONDS)
        for each in clients:
            each.some(5)
    assert [each.lost for each in clients] == [[]] * 4
    assert [len(peers(each)) for each in clients] == [1] * 4


def test_when_a_worker_is_killed_what_clients_send_waits_for_the_next_one(lab: Lab) -> None:
    lab.start_daemon("host1", "--workers", "2")
    with serving(lab, PODS), published(lab, "echo", PODS), crowd(lab, 4) as clients:
        for worker in workers(lab):
            os.kill(worker, signal.SIGKILL)
            wait_until("it is replaced", lambda: len(workers(lab)) == 2, PATIENCE_SECONDS)
        for each in clients:
            each.some(5)
    lost = [len(each.lost) for each in clients]
    print(f"each worker killed once: {sum(each.sent for each in clients)} datagrams, lost {lost}")
    assert all(count <= 2 for count in lost), "one that was under way, for each worker"


def test_without_a_daemon_workers_go_on_and_the_next_one_takes_over(lab: Lab) -> None:
    lab.start_daemon("host1")
    with serving(lab, PODS):
        with published(lab, "echo", PODS), crowd(lab, 4) as clients:
            lab.daemon("host1").kill()
            for each in clients:
                each.some(10)
            lab.start_daemon("host1")
            wait_until("the earlier worker ends", lambda: len(workers(lab)) == 1, PATIENCE_SECONDS)
            for each in clients:
                each.some(5)
        assert [each.lost for each in clients] == [[]] * 4
        assert [len(peers(each)) for each in clients] == [1] * 4


def test_while_it_stops_known_clients_are_served_and_new_ones_refused(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--drain-seconds", "20", "--on-stop", "remove")
    publish(lab, "echo", PODS)
    with serving(lab, PODS):
        with client(lab, "client", CLUSTER_IP) as known:
            before = ask(known)
            daemon.send(signal.SIGTERM)
            wait_until("new clients are refused", lambda: refuses_new_clients(lab), PATIENCE_SECONDS)
            assert echoes(known, 100)
            assert ask(known) == before
        assert daemon.wait(10.0) == 0, "nobody waits long for clients that say nothing any more"
    assert "Traceback" not in daemon.output()


def refuses_new_clients(lab: Lab) -> bool:
    """Whether the kernel tells a new client that nobody is there."""
    with client(lab, "client", CLUSTER_IP) as sock:
        try:
            ask(sock)
        except ConnectionRefusedError:
            return True
    return False
