"""What scenarios, the lab and the benchmark call is there once scripts/install has been run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from userproxy.tests.installation.calls import Source

ROOT = Path(__file__).parents[3]
FILES = sorted(
    file
    for file in [*ROOT.glob("integration/**/*.py"), *ROOT.glob("userproxy/**/*.py")]
    if "tests" not in file.parts
)
OURS = {"python3", "userproxy"}
BUILT = {
    *("etcd", "kube-apiserver", "kube-proxy", "kubectl", "kubernetes-binaries"),
    *("coredns", "e2e.test", "kube-controller-manager", "kube-scheduler", "kubelet", "pause"),
}
"""By scripts/kubernetes-binaries."""
FILE = re.compile(r"/usr/lib/\w[\w./-]+\w")
"""Of a package, by its path."""


def promised() -> set[str]:
    """The last column of scripts/packages."""
    lines = (ROOT / "scripts" / "packages").read_text().splitlines()
    return {each for line in lines if line and line[0] != "#" for each in line.split()[3:]}


def uncalled_for(text: str) -> list[str]:
    """The programs and the files of packages in this source that nobody installs, each with its line."""
    known = {Path(each).name for each in promised()} | OURS | BUILT
    called = [(call.line, program) for call in Source(text).calls() for program in sorted(call.programs)]
    wrong = [f"{line}: {program}" for line, program in called if Path(program).name not in known]
    named = [
        (number, found) for number, line in enumerate(text.splitlines(), 1) for found in FILE.findall(line)
    ]
    wrong += [
        f"{line}: {file}" for line, file in named if not any(each.startswith(file) for each in promised())
    ]
    return wrong


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_what_is_called_is_installed(file: Path) -> None:
    """Else: name it in scripts/packages, with the package that brings it."""
    assert uncalled_for(file.read_text()) == []


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("lab.exec('client', 'nc', '-l')", "nc"),
        ("subprocess.run(['nc', '-l'], check=True)", "nc"),
        ("argv = ('ip', 'netns', 'exec', name, 'nc')\nsubprocess.Popen(argv)", "nc"),
        ("self.lab.start('name', 'server1', *('setpriv', '--pdeathsig', 'KILL', 'nc', '-l'))", "nc"),
        ("lab.exec('client', 'sh', '-c', f'curl -sS {url} | nc -l')", "nc"),
        ("where = ('client',)\nlab.exec(*where, 'nc')", "nc"),
        ("for line in ('ip rule', 'nc -l'):\n    node.run('host', *line.split())", "nc"),
        (
            "class Nc:\n    program = 'nc'\n    def path(self):\n        return find_program(self.program)",
            "nc",
        ),
        ("network.preflight(['curl', 'nc'])", "nc"),
        ("binaries = Path('/usr/bin')\nlab.exec('client', str(binaries / 'nc'))", "nc"),
        ("def inside(pod, *argv):\n    return lab.exec(pod, *argv)", "inside(...)"),
        ("config = 'load_module /usr/lib/nginx/modules/ngx_mail_module.so;'", "ngx_mail_module.so"),
    ],
)
def test_what_nobody_installs_is_noticed(text: str, program: str) -> None:
    (found,) = uncalled_for(text)
    assert found.endswith(program)
