"""A start that fails changes nothing; an end that fails in the kernel still gives connections their time."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from integration.daemon.older_kernel import ON_AN_OLDER_KERNEL
from integration.daemon.test_drain import connected, stopping
from integration.daemon.traces import assert_same, kernel_state
from integration.sockets import echoes
from userproxy.lab.processes import running_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

WITHOUT_WORKERS = """
import sys
sys.executable = "/bin/false"
from userproxy.cli.main import main
sys.argv = sys.argv[1:]
main()
"""
# A nat chain and a rule that asks conntrack: with these the kernel goes on translating connections.
CHAIN = "chain c { type nat hook prerouting priority -100; ct state established accept; };"
THEIRS = f"add table inet userproxy {{ flags owner; {CHAIN} }};"


@contextlib.contextmanager
def owned_by_another(lab: Lab) -> Iterator[None]:
    """Our table is another program's, which lets nobody else change it (NFT_TABLE_F_OWNER)."""
    nft = subprocess.Popen(
        lab.command("host1", "nft", "-i"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert nft.stdin is not None
    try:
        # One transaction: connections that the table has redirected go on.
        nft.stdin.write(f"add table inet userproxy; delete table inet userproxy; {THEIRS}\n")
        nft.stdin.flush()
        wait_until("the table is another's", lambda: "flags owner" in tables(lab), 5.0)
        yield
    finally:
        nft.stdin.close()
        nft.wait(5.0)


def tables(lab: Lab) -> str:
    return lab.exec("host1", "nft", "list", "ruleset").stdout


def test_where_no_worker_starts_nothing_has_been_changed(lab: Lab) -> None:
    before = kernel_state(lab)
    daemon = lab.start_daemon("host1", wait=False, under=(sys.executable, "-c", WITHOUT_WORKERS))
    assert daemon.wait(15.0) == 1
    print(daemon.last_line())
    assert "no worker can be started" in daemon.last_line()
    assert_same(kernel_state(lab), before)
    assert "Traceback" not in daemon.output()


def test_where_the_kernel_refuses_our_rules_nothing_is_left_of_the_start(lab: Lab) -> None:
    before = kernel_state(lab)
    with owned_by_another(lab):
        daemon = lab.start_daemon("host1", wait=False)
        assert daemon.wait(15.0) == 1
        print(daemon.last_line())
        assert "belongs to another process" in daemon.last_line()
        wait_until("its workers have ended", lambda: len(running_in([lab.namespace("host1")])) == 1, 5.0)
    assert_same(kernel_state(lab), before)
    assert "Traceback" not in daemon.output()


def test_with_a_kernel_that_refuses_every_change_connections_still_get_their_time(lab: Lab) -> None:
    # Where another one can take our table.
    daemon = lab.start_daemon("host1", "--on-stop", "remove", under=ON_AN_OLDER_KERNEL)
    with connected(lab) as (_, client, server), owned_by_another(lab):
        daemon.send(signal.SIGTERM)
        wait_until("it stops", lambda: stopping(lab), 5.0)
        assert echoes(client, server)
        wait_until("it says so", lambda: "new clients are not refused" in daemon.output(), 5.0)
        assert daemon.alive
        assert echoes(client, server)
        client.close()
        assert not server.recv(1)
        server.close()
        assert daemon.wait(10.0) == 1
        wait_until("no worker is left", lambda: len(running_in([lab.namespace("host1")])) == 1, 5.0)
    print(daemon.last_line())
    assert "userproxy cleanup" in daemon.last_line()
    assert "Traceback" not in daemon.output()
