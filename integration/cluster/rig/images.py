"""The images that the tests run, made by hand: no registry is asked.

| image | is |
|---|---|
| agnhost | a small Debian (debootstrap) with curl, nc, dig and ss, and in it agnhost and CoreDNS |
| busybox, jessie-dnsutils, nginx | agnhost again: it has what the tests want of them |
| regression-issue-74839 | that program alone |
| pause | that program alone |

Names and versions are those that e2e.test asks for. Each is a tarball as of `docker save`, kept in the cache
under the hash of what goes into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_PACKAGES = ("bash", "bind9-dnsutils", "ca-certificates", "curl", "iproute2", "netcat-openbsd", "wget")
_PROGRAMS = ("agnhost", "coredns", "pause", "regression-issue-74839")
_STAND_INS = ("busybox", "jessie-dnsutils", "nginx")
_BULK = (
    *(
        "usr/share/bash-completion",
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
        "usr/share/zoneinfo",
    ),
    *("usr/lib/*/gconv", "usr/lib/*/perl-base", "usr/share/perl5"),
    *("var/cache/apt", "var/lib/apt/lists", "var/lib/dpkg/info"),
)
"""What no test has a use for: most of the files, each of which every node unpacks, and removes again."""
_SCRATCH = ".making-"
_UNUSED_SECONDS = 30 * 24 * 3600.0
_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


@dataclass(frozen=True)
class Image:
    """An image as a tarball.

    Attributes:
        archive: for `ctr images import`.
        name: by which it is imported.
        stand_ins: further names by which pods may ask for it.
    """

    archive: Path
    name: str
    stand_ins: tuple[str, ...] = ()


class Names:
    """The images that e2e.test asks for, as `e2e.test --list-images` prints them."""

    def __init__(self, binaries: Path) -> None:
        """Asks the e2e.test among the binaries.

        Raises:
            ClusterError: it does not run.
        """
        command = [str(binaries / "e2e.test"), "--list-images"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{command[0]} --list-images: {done.stderr.strip()}")
        self._names = done.stdout.split()

    def of(self, image: str) -> tuple[str, ...]:
        """The full names of an image, one a version.

        Raises:
            ClusterError: there is none.
        """
        found = tuple(name for name in self._names if name.rpartition(":")[0].endswith(f"/{image}"))
        if not found:
            raise ClusterError(f"e2e.test asks for no image {image}")
        return found


def make(binaries: Path) -> list[Image]:
    """The images, out of the cache or made now: about a minute, for root, with a mirror of the distribution.

    Raises:
        ClusterError: debootstrap is missing or failed.
    """
    names = Names(binaries)
    directory = _cache() / _key(binaries)
    pause, regression = names.of("pause")[0], names.of("e2e-test-images/regression-issue-74839")[0]
    agnhost = names.of("e2e-test-images/agnhost")[0]
    with _alone():
        if not directory.exists():
            _forget(directory.parent)
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=directory.parent) as scratch:
                whole = Path(scratch) / "whole"
                whole.mkdir()
                for name in (pause, regression):
                    _program(binaries, name, Path(scratch), whole)
                _agnhost(binaries, agnhost, Path(scratch), whole)
                whole.rename(directory)
        os.utime(directory)
    stand_ins = tuple(name for image in _STAND_INS for name in names.of(f"e2e-test-images/{image}"))
    return [
        Image(directory / "pause.tar", pause),
        Image(directory / "regression-issue-74839.tar", regression),
        Image(directory / "agnhost.tar", agnhost, stand_ins),
    ]


def _forget(cache: Path) -> None:
    """Remove what somebody who was killed has left, and images that were not used for long."""
    for each in cache.iterdir():
        unused = time.time() - each.stat().st_mtime > _UNUSED_SECONDS
        if each.is_dir() and (unused or each.name.startswith(_SCRATCH)):
            shutil.rmtree(each)


def _program(binaries: Path, name: str, scratch: Path, to: Path) -> None:
    program = name.rpartition("/")[2].partition(":")[0]
    tree = scratch / program
    tree.mkdir()
    shutil.copy(binaries / program, tree)
    archive(tree, name, [f"/{program}"], to / f"{program}.tar")


def _agnhost(binaries: Path, name: str, scratch: Path, to: Path) -> None:
    tree = scratch / "agnhost"
    _debian(tree)
    for program in ("agnhost", "coredns"):
        shutil.copy(binaries / program, tree)
    (tree / "agnhost-2").symlink_to("agnhost")
    (tree / "uploads").mkdir()
    archive(tree, name, ["/agnhost", "pause"], to / "agnhost.tar")


def _debian(tree: Path) -> None:
    """A minimal system of this machine's own distribution and version, with _PACKAGES."""
    if not shutil.which("debootstrap"):
        raise ClusterError("debootstrap is not installed: run scripts/install --dev")
    packages = f"--include={','.join(_PACKAGES)}"
    command = ["debootstrap", "--variant=minbase", packages, _suite(), str(tree), *_mirror()]
    # Whatever it starts and mounts ends with it, also when we are killed.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation=private"]
    alone += ["--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    done = subprocess.run(
        [*alone, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed: {' '.join(done.stdout.splitlines()[-3:])}")
    for each in (found for pattern in _BULK for found in tree.glob(pattern)):
        shutil.rmtree(each)


def _suite() -> str:
    text = Path("/etc/os-release").read_text()
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return found.get("VERSION_CODENAME", "bookworm").strip('"')


def _mirror() -> list[str]:
    """Where apt has the distribution from; empty for the distribution's own choice."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (line.split() for line in done.stdout.splitlines())
    return [uri for suite, uri in lines if suite == _suite()][:1]


def archive(
    tree: Path, name: str, command: list[str], to: Path, environment: Sequence[str] = _ENVIRONMENT
) -> None:
    """Writes a tree as an image of one layer; `command` is the entrypoint and its default arguments."""
    layer = to.with_suffix(".layer")
    subprocess.run(["tar", "-C", str(tree), "--numeric-owner", "-cf", str(layer), "."], check=True)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "config": {
            "Entrypoint": command[:1],
            "Cmd": command[1:],
            "WorkingDir": "/",
            "Env": list(environment),
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(to, "w") as tar:
        tar.add(layer, "layer.tar")
        for member, content in (("config.json", config), ("manifest.json", manifest)):
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    layer.unlink()


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _key(binaries: Path) -> str:
    """Changes with anything that goes into an image; the distribution's updates do not count."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(_suite().encode())
    for program in _PROGRAMS:
        with (binaries / program).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _cache() -> Path:
    """Where scripts/kubernetes-binaries keeps what it builds, too."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(home) / "userproxy" / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.contextmanager
def _alone() -> Generator[None]:
    """One rig at a time makes images, and the others find them."""
    with (_cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
