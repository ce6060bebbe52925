"""Whatever is in the manifests and on the command line: one clear line, and what was good stays."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from integration.services import manifest, problems, publish, withdraw
from integration.sockets import connect
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2, SERVER_SERVICE
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME, FRONTEND = "mine", Address("10.3.241.80", 80)
BACKEND = Address(SERVER1.ip, 8080)
GOOD = manifest(NAME, FRONTEND, [BACKEND])
SERVICE = ("document 1", "Service default/mine")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

BAD = {
    "broken YAML": ("kind: Service\n  metadata: [", ["document 1"]),
    "broken YAML in the second document": (GOOD + "---\nkind: [\n", ["document 3"]),
    "no cluster IP": (GOOD.replace(FRONTEND.ip, "ten"), [*SERVICE, "clusterIP", "ten"]),
    "port too large": (GOOD.replace('"port": 80,', '"port": 70000,'), [*SERVICE, "ports[0].port", "70000"]),
    "port is text": (GOOD.replace('"port": 80,', '"port": "x",'), [*SERVICE, "ports[0].port"]),
    "an unknown kind": (GOOD.replace('"Service"', '"Servise"'), ["document 1", "Servise"]),
    "no kind": ("metadata: {name: x}", ["document 1", "kind"]),
    "a list": ("- 1\n- 2\n", ["document 1"]),
    "a scalar": ("hello", ["document 1"]),
    "not UTF-8": ("\udcff\udcfe", ["document 1"]),
    "nothing": ("", []),
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon_lab(idle_lab: Lab) -> Iterator[Lab]:
    """One daemon for the whole file."""
    for log in idle_lab.logs.glob("host1-daemon.log"):
        log.unlink()
    idle_lab.start_daemon("host1")
    yield idle_lab
    idle_lab.daemon("host1").stop()


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_keeps_its_last_good_state_and_is_told(daemon_lab: Lab, what: str) -> None:
    lab = daemon_lab
    text, clues = BAD[what]
    publish(lab, NAME, FRONTEND.ip, [BACKEND])
    logged = len(lab.daemon("host1").output())
    path = lab.manifests / f"{NAME}.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    try:
        wait_until("it is told", lambda: bool(problems(lab)), 5.0)
        (problem,) = problems(lab)
        assert str(path) in problem
        for clue in clues:
            assert clue in problem
        for address in (FRONTEND, SERVER_SERVICE.frontend):
            connect(lab, "client", address).close()
        new = ESCAPES.sub("", lab.daemon("host1").output()[logged:])
        (line,) = [line for line in new.splitlines() if "[error" in line]
        assert str(path) in line
        print(line.partition("] ")[2])
        assert "Traceback" not in new
    finally:
        publish(lab, NAME, FRONTEND.ip, [BACKEND])
        wait_until("it is in order again", lambda: not problems(lab), 5.0)
        withdraw(lab, NAME)


def test_a_bad_file_beside_a_good_one_does_not_hold_it_up(daemon_lab: Lab) -> None:
    lab = daemon_lab
    lab.write_manifest("bad.yaml", "kind: [")
    wait_until("it is told", lambda: bool(problems(lab)), 5.0)
    frontend = publish(lab, NAME, FRONTEND.ip, [BACKEND])
    connect(lab, "client", frontend).close()
    lab.remove_manifest("bad.yaml")
    withdraw(lab, NAME)
    wait_until("it is in order again", lambda: not problems(lab), 5.0)


def test_an_endpoint_without_a_right_address_is_left_out_and_told(daemon_lab: Lab) -> None:
    lab = daemon_lab
    publish(lab, NAME, FRONTEND.ip, [BACKEND, Address(SERVER2.ip, 8080)])
    text = (lab.manifests / f"{NAME}.yaml").read_text()
    lab.write_manifest(f"{NAME}.yaml", text.replace(SERVER2.ip, "10.0.2.256"))
    wait_until("it is told", lambda: bool(problems(lab)), 5.0)
    (problem,) = problems(lab)
    assert "EndpointSlice default/mine-1" in problem
    assert "10.0.2.256" in problem
    assert problem.split(": ", 1)[1] in lab.daemon("host1").output()
    (row,) = [row for row in lab.rows("host1", "services") if row["service"] == f"default/{NAME}"]
    assert row["problems"]
    for _ in range(3):
        connect(lab, "client", FRONTEND).close()
    withdraw(lab, NAME)
    wait_until("it is in order again", lambda: not problems(lab), 5.0)


def test_two_services_with_one_address_are_told_and_the_first_one_wins(daemon_lab: Lab) -> None:
    lab = daemon_lab
    publish(lab, NAME, FRONTEND.ip, [BACKEND])
    lab.write_manifest("zz.yaml", manifest("zz", FRONTEND, []))
    wait_until("it is told", lambda: bool(problems(lab)), 5.0)
    assert "default/zz" in problems(lab)[0]
    connect(lab, "client", FRONTEND).close()
    withdraw(lab, NAME)
    wait_until("the other one has it", lambda: not problems(lab), 5.0)
    with pytest.raises(ConnectionRefusedError):
        connect(lab, "client", FRONTEND)
    withdraw(lab, "zz")


@pytest.mark.parametrize(
    ("flags", "clue"),
    [
        (("--port-range", "10400"), "10400-18399"),
        (("--port-range", "500-400"), "500-400"),
        (("--port-range", "1-70000"), "1-70000"),
        (("--host-ip", "10.100.0.300"), "10.100.0.300"),
        (("--host-ip", "fd00::1"), "fd00::1 is not an address of this node"),
        (("--host-ip", "10.100.0.2,10.0.1.1"), "are both IPv4"),
        (("--mode", "sideways"), "redirect-to-host"),
        (("--log-level", "loud"), "loud"),
        (("--drain-seconds", "-1"), "drain-seconds"),
        (("--drain-seconds", "nan"), "drain-seconds"),
        (("--drain-seconds", "soon"), "soon"),
        (("--linger-seconds", "0"), "linger-seconds"),
        (("--config", "/nowhere.yaml"), "/nowhere.yaml"),
        (("--no-such-flag",), "--no-such-flag"),
        (("surplus",), "surplus"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(idle_lab: Lab, flags: tuple[str, ...], clue: str) -> None:
    command = ("userproxy", "run", "--manifests", str(idle_lab.manifests), *flags)
    done = idle_lab.exec("client", *command, check=False)
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("Usage:", "Try ")) and line]
    print(line)
    assert done.returncode == 2
    assert clue in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        ("mode: [", "YAML"),
        ("- a", "mapping"),
        ("speed: 3", "speed"),
        ("mode: sideways", "sideways"),
        ("drain-seconds: x", "drain-seconds"),
    ],
)
def test_a_bad_configuration_file_is_one_line_and_exit_code_2(idle_lab: Lab, content: str, clue: str) -> None:
    file = idle_lab.directory / "config.yaml"
    file.write_text(content)
    command = ("userproxy", "run", "--manifests", str(idle_lab.manifests), "--config", str(file))
    done = idle_lab.exec("client", *command, check=False)
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("Usage:", "Try ")) and line]
    print(line)
    assert done.returncode == 2
    assert str(file) in line
    assert clue in line


@pytest.mark.parametrize(
    "flags",
    [
        ("--manifests", "/no/such/file.yaml"),
        ("--admin-socket", "/etc/passwd"),
    ],
)
def test_what_a_daemon_cannot_start_with_is_one_line_and_exit_code_1(
    idle_lab: Lab, flags: tuple[str, ...]
) -> None:
    # On host2: on host1 a daemon is at work.
    command = ("timeout", "5", "userproxy", "run", "--manifests", str(idle_lab.manifests))
    state = ("--state-dir", str(idle_lab.state("host2")))
    done = idle_lab.exec("host2", *command, *state, *flags, check=False)
    print(done.stderr)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert flags[1] in done.stderr
    assert idle_lab.exec("host2", "nft", "list", "ruleset").stdout == ""
