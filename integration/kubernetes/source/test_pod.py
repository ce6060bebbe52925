"""The daemon as the pod of `scripts/deploy`: a mounted ServiceAccount, and only the capabilities it names."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from integration.kubernetes.source.site import DEPLOY, HOST, Site, reference, seconds_until
from integration.vitals import family, has_no_privilege
from userproxy.lab.topology import REFERENCE
from userproxy.worker.privileges import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = (DEPLOY / "daemonset.yaml").read_text()
MOUNT = Path("/run/secrets/kubernetes.io/serviceaccount")
CAPABILITIES = {each.name: each.value for each in CONTROL if f"- {each.name}" in MANIFEST}


@contextlib.contextmanager
def mount_point() -> Iterator[None]:
    """The directory that a ServiceAccount is mounted on; nothing of it stays on this machine."""
    made = [each for each in (MOUNT, *MOUNT.parents) if not each.exists()]
    MOUNT.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for each in made:
            each.rmdir()


def start_pod(site: Site, account: Path) -> None:
    """Start the daemon on host1 with `account` mounted, which holds `token` and `ca.crt`."""
    here = REFERENCE.host(HOST)
    kept = ",".join(f"+{name.lower()}" for name in CAPABILITIES)
    run = [
        *("setpriv", "--bounding-set", f"-all,{kept}", "--inh-caps", "-all", "--no-new-privs"),
        *("userproxy", "run", "--node-name", here.name, "--host-ip", here.ip, "--log-format", "json"),
        *("--admin-socket", str(site.lab.admin_socket(HOST)), "--state-dir", str(site.lab.state(HOST))),
        *("--on-stop", "remove"),
    ]
    script = f"mount --bind {account} {MOUNT} && exec {shlex.join(run)}"
    server = (f"KUBERNETES_SERVICE_HOST={REFERENCE.gateway_ip}", "KUBERNETES_SERVICE_PORT=6443")
    site.lab.start(f"{HOST}-daemon", HOST, "env", *server, "unshare", "--mount", "sh", "-c", script)


def test_as_a_pod_with_a_token_that_is_rotated(site: Site, tmp_path: Path) -> None:
    assert CAPABILITIES.keys() == {"NET_ADMIN", "NET_RAW", "SETUID", "SETGID", "SETPCAP", "KILL"}
    config = json.loads(site.kubeconfig.read_text())
    (tmp_path / "ca.crt").write_bytes(site.cluster.ca_file.read_bytes())
    (tmp_path / "token").write_text("expired")
    site.cluster.apply(*reference())
    site.daemon.stop()
    site.lab.userproxy(HOST, "cleanup")  # or its rules would go on answering
    site.daemon.log.write_text("")
    with mount_point():
        start_pod(site, tmp_path)
        seconds_until(lambda: bool(site.log("the API server does not tell")))
        (tmp_path / "token").write_text(config["users"][0]["user"]["token"])
        seconds = seconds_until(lambda: site.answering() == {"server1", "server2"})
        print(f"served {seconds:.1f} s after the token was rotated")
        status = Path(f"/proc/{site.daemon.pid}/status").read_text()
        effective = int(status.partition("CapEff:")[2].split()[0], 16)
        allowed = sum(1 << bit for bit in CAPABILITIES.values())
        assert effective & 1 << CAPABILITIES["NET_ADMIN"]
        assert not effective & ~allowed
        assert all(map(has_no_privilege, family(site.daemon.pid)[1:]))
        assert site.page("/healthz")[0] == 200
        assert site.daemon.stop() == 0
    rules = site.lab.exec(HOST, "nft", "list", "ruleset").stdout
    assert "userproxy" not in rules
