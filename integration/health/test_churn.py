"""An hour's worth of churn in a short time: afterwards all is back where it was, and no byte was wrong.

Seeded, so repeatable: USERPROXY_CHURN_SEED. The suite takes a short version; all of it takes
USERPROXY_CHURN_SECONDS=60.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from integration.health.scenes import server
from integration.services import manifest
from integration.uploads import Uploads
from integration.vitals import family, open_files, resident_bytes
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2, SERVER_SERVICE
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

SEED = int(os.environ.get("USERPROXY_CHURN_SEED", "1"))
SECONDS = float(os.environ.get("USERPROXY_CHURN_SECONDS", "16"))
CLIENTS = 12
ALWAYS_THERE = 0.4
SERVICES = 8
SPARE_FILES = 2 * 64 + 20
"""The pipes that each worker keeps for the next bytes, and a margin for who is just asking."""

GROWTH = 1.15
SLACK_BYTES = 6 << 20

PODS = [
    *(Address(SERVER1.ip, port) for port in (7600, 7601, 7602)),
    *(Address(SERVER2.ip, port) for port in (7600, 7601, 7699)),  # nobody listens on the last one
]


class Churn:
    """Services and pods that come and go."""

    def __init__(self, lab: Lab, stack: ExitStack, seed: int) -> None:
        self._lab = lab
        self._stack = stack
        self._draw = random.Random(seed)  # noqa: S311 - repeatable
        self._published: set[int] = set()
        self.done: Counter[str] = Counter()

    def step(self) -> None:
        """Something changes."""
        what = self._draw.choice(["publish"] * 6 + ["withdraw"] * 2 + ["crash"] * 2 + ["drain", "kill"])
        self.done[what] += 1
        getattr(self, f"_{what}")()

    def frontend(self, draw: random.Random) -> Address:
        """Of a Service that is there, or soon will be; often the lab's own, which always is."""
        if draw.random() < ALWAYS_THERE or not self._published:
            return SERVER_SERVICE.frontend
        return _frontend(draw.choice(sorted(self._published)))

    def settle(self) -> None:
        """No Service of ours is left."""
        for number in tuple(self._published):
            self._forget(number)
        with AdminClient(self._lab.admin_socket("host1")) as admin:
            wait_until("they are gone", lambda: len(list(admin.services())) == 1, 10.0)

    def _publish(self) -> None:
        number = self._draw.randrange(SERVICES)
        pods = self._draw.sample(PODS, self._draw.randint(1, len(PODS)))
        self._published.add(number)
        self._lab.write_manifest(f"churn-{number}.yaml", manifest(f"churn-{number}", _frontend(number), pods))

    def _withdraw(self) -> None:
        if self._published:
            self._forget(self._draw.choice(sorted(self._published)))

    def _forget(self, number: int) -> None:
        self._published.remove(number)
        self._lab.remove_manifest(f"churn-{number}.yaml")

    def _crash(self) -> None:
        member, port = self._draw.choice([("server1", 7601), ("server1", 7602), ("server2", 7601)])
        process = self._lab.processes.get(f"{member}-{port}")
        if process is not None and process.alive:
            process.kill()
        else:
            self._stack.enter_context(server(self._lab, member, port))

    def _drain(self) -> None:
        self._lab.exec("host1", "userproxy", "drain", SERVER2.ip)
        self._lab.exec("host1", "userproxy", "drain", "--undo", SERVER2.ip)

    def _kill(self) -> None:
        self._lab.exec("host1", "userproxy", "kill", "--backend", str(PODS[1]), check=False)


def _frontend(number: int) -> Address:
    return Address(f"10.3.243.{10 + number}", 80)


def vitals(lab: Lab) -> tuple[list[int], list[int], list[int]]:
    """Open files, threads and resident bytes of each process."""
    pids = family(lab.daemon("host1").pid)
    threads = [len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids]
    return [open_files(pid) for pid in pids], threads, [resident_bytes(pid) for pid in pids]


@contextmanager
def churning(lab: Lab, churn: Churn, seconds: float, seed: int) -> Iterator[Uploads]:
    uploads = Uploads(lab, seed, CLIENTS, churn.frontend)
    uploads.start()
    try:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            churn.step()
            time.sleep(0.05)
        yield uploads
    finally:
        uploads.stop()


def quiet(lab: Lab) -> None:
    """Wait until nothing is going on any more."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        wait_until("all connections are over", lambda: admin.status().connections == 0, 30.0)
    time.sleep(6.0)  # the workers tidy up every 5 s


def test_after_churn_everything_is_as_before_and_no_byte_was_wrong(lab: Lab) -> None:
    outcomes: Counter[str] = Counter()
    measured = []
    with ExitStack() as stack:
        for member, port in (("server1", 7600), ("server1", 7601), ("server2", 7600), ("server2", 7601)):
            stack.enter_context(server(lab, member, port))
        churn = Churn(lab, stack, SEED)
        pids = family(lab.daemon("host1").pid)
        for half in (1, 2):
            with churning(lab, churn, SECONDS / 2, SEED + half) as uploads:
                pass
            outcomes += uploads.outcomes
            churn.settle()
            quiet(lab)
            measured.append(vitals(lab))
            moved = uploads.bytes / 1e6
            print(f"half {half}: {dict(uploads.outcomes)}, {moved:.0f} MB uploaded")
            print(f"files, threads, bytes of each process: {measured[-1]}")
    print(f"seed {SEED}, {SECONDS:g} s: {dict(churn.done)}")
    (files, threads, memory), (files_after, threads_after, memory_after) = measured
    assert family(lab.daemon("host1").pid) == pids, "a process was replaced"
    assert outcomes["wrong"] == 0
    assert outcomes["timed out"] == 0
    assert outcomes["right"] > 0
    for before, after in zip(files, files_after, strict=True):
        assert after <= before + SPARE_FILES
    for before, after in zip(threads, threads_after, strict=True):
        assert after <= before + 1
    for before, after in zip(memory, memory_after, strict=True):
        assert after <= GROWTH * before + SLACK_BYTES
    assert "Traceback" not in lab.daemon("host1").output()
