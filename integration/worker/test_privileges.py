"""Workers carry strangers' bytes, and have nothing that a stranger could want."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from integration.vitals import has_no_privilege, is_dumpable, user_of
from integration.worker.site import BEGIN, Client, Site, minded, pids, rows, serve, until
from userproxy.model.filter import ConnectionFilter
from userproxy.worker import rendezvous
from userproxy.worker.channel import pair
from userproxy.worker.handle import WorkerGoneError
from userproxy.worker.origin import Origin, processes
from userproxy.worker.pool import WorkerPool

if TYPE_CHECKING:
    import socket
    from pathlib import Path

# What must fail after the step that a worker takes, in a network namespace of its own: prints the errno.
ATTEMPTS = """
import ctypes, errno, json, os, socket, sys
from pyroute2 import IPRoute, NetlinkError
from userproxy.worker import privileges
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x40000000) == 0
route = IPRoute()
def mark():
    socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)
def link():
    try:
        route.link("set", index=1, state="up")
    except NetlinkError as error:
        raise OSError(error.code, "") from None
attempts = {
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
    "mark": mark,
    "port 80": lambda: socket.socket().bind(("", 80)),
    "another link state": link,
    "file of root's": lambda: open(sys.argv[1]),
    "root again": lambda: os.setresuid(0, 0, 0),
    "signal to a process of root's": lambda: os.kill(os.getppid(), 0),
    "more files than allowed": lambda: __import__("resource").setrlimit(7, (1 << 20, 1 << 21)),
}
def outcomes():
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            yield name, errno.errorcode[error.errno]
        except ValueError as error:
            yield name, "EPERM"
        else:
            yield name, "done"
privileges.give_up_all()
print(json.dumps(dict(outcomes())))
"""


async def test_workers_have_nothing_also_those_that_take_a_dead_one_s_place(site: Site) -> None:
    pool, wanted = await site.serving(2)
    first = pids(pool)
    assert all(map(has_no_privilege, first))
    assert len({user_of(pid) for pid in first}) == 2, "one cannot touch the other"
    assert not is_dumpable(first[0]), "no core dump, and nobody but root looks inside"
    assert await (await Client.connect(wanted.listener)).is_served()
    async with minded(pool):
        os.kill(first[0], signal.SIGKILL)
        await until(lambda: first[0] not in pids(pool) and len(pids(pool)) == 2)
    assert all(map(has_no_privilege, pids(pool)))


def test_what_must_fail_fails(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.touch(0o600)
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, secret], capture_output=True, text=True, check=True, timeout=60
    )
    outcomes = json.loads(done.stdout)
    print(outcomes)
    assert len(outcomes) == 9
    assert set(outcomes.values()) == {"EPERM", "EACCES"}


async def test_a_worker_takes_no_orders_from_another_process_of_its_own_user(site: Site) -> None:
    pool, wanted = await site.serving()
    (pid,) = pids(pool)
    visitor = (
        "import os, socket, sys; os.setgroups([]); os.setresgid(*[int(sys.argv[2])] * 3)\n"
        "os.setresuid(*[int(sys.argv[2])] * 3)\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); sock.settimeout(5)\n"
        "sock.connect(chr(0) + sys.argv[1]); sys.exit(len(sock.recv(100)))"
    )
    (name,) = (each.decode() for each in rendezvous._names(site.prefix.encode()))
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", visitor, name, str(user_of(pid)))
    assert await stranger.wait() == 0, "it was let in"
    assert await (await Client.connect(wanted.listener)).is_served()


def changed(site: Site, change: str, stderr: int | None = None) -> WorkerPool:
    """A pool whose workers run this before they begin, with `privileges` at hand."""

    def start() -> tuple[socket.socket, int]:
        ours, theirs = pair()
        program = (
            f"import runpy\nfrom userproxy.worker import privileges\n{change}\n"
            "runpy.run_module('userproxy.worker.process', run_name='__main__', alter_sys=True)"
        )
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(theirs.fileno()), site.prefix],
                pass_fds=[theirs.fileno()],
                stderr=stderr,
            )
        process.returncode = 0  # the pool waits for it
        return ours, process.pid

    site.pools.append(WorkerPool(1, BEGIN, Origin(start, processes(site.prefix).find)))
    return site.pools[-1]


async def test_a_worker_that_cannot_give_up_its_privileges_ends_and_says_why(site: Site) -> None:
    said, theirs = os.pipe()
    try:
        pool = changed(site, "privileges._VERSION = 1 << 31", theirs)
        with pytest.raises(WorkerGoneError):
            await pool.start()
        text = os.read(said, 1 << 16).decode()
    finally:
        os.close(said)
        os.close(theirs)
    assert "a worker ends: it is not to carry strangers' bytes as it is" in text
    assert "privileges cannot be given up: [Errno 22] Invalid argument" in text
    assert "Traceback" not in text


async def test_a_worker_of_a_version_that_stayed_root_is_taken_over_from(site: Site) -> None:
    older = changed(site, "privileges.give_up_all = lambda *_: None")
    await older.start()
    server = await site.server()
    wanted = serve("web", server.address)
    await older.serve([wanted])
    client = await Client.connect(wanted.listener)
    (old,) = pids(older)
    assert user_of(old) == 0
    older.leave()
    newer = await site.pool()
    assert newer.serves == {wanted.name: wanted}
    assert all(map(has_no_privilege, pids(newer)))
    assert len(await rows(newer)) == 1
    assert await client.is_served()
    assert await (await Client.connect(wanted.listener)).is_served()
    newer.leave()
    newest = await site.pool()
    assert newest.serves == {wanted.name: wanted}
    assert await client.is_served()
    assert await newest.kill(None, ConnectionFilter()) == 2
    assert await client.is_reset()
