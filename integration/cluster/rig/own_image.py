"""The image of userproxy itself, laid out as by scripts/deploy/Dockerfile, made without docker.

It has the interpreter that runs the tests with its standard library, out of the environment of the tests what
pyproject.toml says that the program needs, the program as it stands in the checkout, and the shared libraries
of all that. Making it takes some seconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.rig.images import Image, archive
from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAMES = ("docker.io/library/userproxy:dev", "docker.io/library/userproxy:next")
"""Two versions, to update from one to the other."""

_TOP = Path(__file__).parents[3]
_HOME = Path("/opt/userproxy")
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PROGRAMS = ("/bin/sh", "/usr/bin/test", "/usr/bin/sleep")
_LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "config-*", "ensurepip", "idlelib", "lib2to3", "test", "tests"
)
_SHARED = re.compile(r"(?:=> )?(/\S+) \(0x")
_REQUIREMENT = re.compile(r"[\w.-]+")
_ENVIRONMENT = [f"PATH={_HOME}/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"]


def make(directory: Path) -> Image:
    """Make it in a directory, which need not be there.

    Raises:
        ClusterError: a shared library is missing.
    """
    tree = directory / "userproxy"
    site = tree / str(_HOME).lstrip("/") / "lib" / _PYTHON / "site-packages"
    site.mkdir(parents=True)
    for folder in ("etc", "proc", "run", "sys", "tmp", "var/lib"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    interpreter = Path(sys.executable).resolve()
    binaries = [interpreter, *map(Path, _PROGRAMS)]
    for each in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        to = tree / each.lstrip("/")
        shutil.copytree(each, to, ignore=_LEFT_OUT, symlinks=False, dirs_exist_ok=True)
        shutil.rmtree(to / "site-packages", ignore_errors=True)
        shutil.rmtree(to / "dist-packages", ignore_errors=True)
    for file, name in _needed():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, site / name)
    shutil.copytree(
        _TOP / "userproxy", site / "userproxy", ignore=shutil.ignore_patterns("__pycache__", "tests")
    )
    home = tree / str(_HOME).lstrip("/")
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\ninclude-system-site-packages = false\n")
    (home / "bin" / "python").symlink_to(interpreter)
    script = home / "bin" / "userproxy"
    script.write_text(f"#!{_HOME}/bin/python\nfrom userproxy.cli.entry import main\n\nmain()\n")
    script.chmod(0o755)
    for file in binaries:
        _copy(file, tree)
    for file in _libraries([*binaries, *tree.rglob("*.so"), *tree.rglob("*.so.*")]):
        _copy(file, tree)
    archive(tree, NAMES[0], ["userproxy", "run"], directory / "userproxy.tar", environment=_ENVIRONMENT)
    shutil.rmtree(tree)
    return Image(directory / "userproxy.tar", NAMES[0], NAMES[1:])


def _needed() -> Iterator[tuple[Path, str]]:
    """The files of all distributions that the program needs, and their names in site-packages."""
    wanted, seen = ["userproxy"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        for line in distribution.requires or ():
            required, _, marker = line.partition(";")
            found = _REQUIREMENT.match(required)
            if found and "extra" not in marker and _is_installed(found[0]):
                wanted.append(found[0])
        for file in () if name == "userproxy" else distribution.files or ():
            place = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and place.is_file() and place.suffix != ".pyc":
                yield place, str(file)


def _is_installed(name: str) -> bool:
    """What is not is for other systems."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if "not found" in line:
            raise ClusterError(f"the image of userproxy lacks a shared library: {line.strip()}")
        if shared := _SHARED.search(line):
            found.add(Path(shared[1]))
    return found


def _copy(file: Path, tree: Path) -> None:
    to = tree / str(file).lstrip("/")
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        shutil.copy(file, to)  # what a link leads to
