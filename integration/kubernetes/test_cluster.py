"""The test cluster itself: what the scenarios on top of it take for granted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.kubernetes.cluster import Cluster, KubectlError
from integration.kubernetes.processes import ClusterError
from userproxy.lab.objects import Port, endpoint, endpoint_slice, service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE_IP = "10.3.241.152"
PORTS = [Port(80, 8080)]
OBJECTS = [
    service("server-service", [SERVICE_IP], PORTS),
    endpoint_slice("server-service-1", "server-service", PORTS, [endpoint("10.0.1.2"), endpoint("10.0.2.2")]),
]
RUN_UNTIL_KILLED = """
import signal, sys
from pathlib import Path
from integration.kubernetes.cluster import Cluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in the background
with Cluster(Path(sys.argv[1])) as cluster:
    print(cluster.directory, flush=True)
    signal.pause()
"""


def config_map(value: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "history", "namespace": "default"},
        "data": {"value": value},
    }


def get(cluster: Cluster, *what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", *what, "--output=json"))
    return found


def processes_in(directory: str) -> list[str]:
    """The pids of all processes whose command line names `directory`."""
    return [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.parent.name != str(os.getpid()) and names(path, directory)
    ]


def names(cmdline: Path, directory: str) -> bool:
    try:
        return directory.encode() in cmdline.read_bytes()
    except OSError:  # it ended meanwhile
        return False


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `holds` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


def test_a_service_with_endpoints_of_our_own_is_kept(cluster: Cluster) -> None:
    cluster.apply(*OBJECTS)

    found = get(cluster, "service", "server-service")
    assert found["spec"]["clusterIP"] == SERVICE_IP
    assert found["spec"]["ports"][0]["targetPort"] == 8080
    slices = get(cluster, "endpointslices", "--selector=kubernetes.io/service-name=server-service")
    addresses = [endpoint["addresses"] for item in slices["items"] for endpoint in item["endpoints"]]
    assert addresses == [["10.0.1.2"], ["10.0.2.2"]]


def test_the_api_server_enforces_the_service_range(cluster: Cluster) -> None:
    with pytest.raises(KubectlError, match="does not match the current range"):
        cluster.apply(service("outside", ["10.9.9.9"], PORTS))


def test_a_service_account_may_only_what_a_role_allows(cluster: Cluster) -> None:
    proxy = cluster.kubeconfig_for("userproxy", "kube-system")
    listing = ("get", "services", "--all-namespaces")

    def may_list() -> bool:
        try:
            cluster.kubectl(*listing, kubeconfig=proxy)
        except KubectlError as error:
            return 'User "system:serviceaccount:kube-system:userproxy" cannot list' not in error.stderr
        return True

    assert not may_list()

    cluster.kubectl(
        *("create", "clusterrolebinding", "userproxy-reads"),
        *("--clusterrole=system:node-proxier", "--serviceaccount=kube-system:userproxy"),
    )
    assert eventually(may_list)  # the authorizer learns of the binding through a watch of its own
    with pytest.raises(KubectlError, match="cannot create"):
        cluster.kubectl("create", "configmap", "not-mine", kubeconfig=proxy)


def test_a_killed_api_server_comes_back_with_its_data_address_and_tokens(cluster: Cluster) -> None:
    cluster.apply(OBJECTS[0])
    uid = get(cluster, "service", "server-service")["metadata"]["uid"]
    before = cluster.kubeconfig_for("survivor")

    cluster.kill_apiserver()
    assert cluster.apiserver_pid is None
    with pytest.raises(KubectlError, match="refused"):
        cluster.kubectl("get", "services")
    cluster.start_apiserver()

    assert get(cluster, "service", "server-service")["metadata"]["uid"] == uid
    assert "default:survivor" in cluster.kubectl("auth", "whoami", kubeconfig=before)


def test_compaction_makes_an_old_resource_version_gone(cluster: Cluster) -> None:
    cluster.apply(config_map("first"))
    old = get(cluster, "configmap", "history")["metadata"]["resourceVersion"]
    cluster.apply(config_map("second"))
    listing = f"/api/v1/configmaps?resourceVersion={old}&resourceVersionMatch=Exact"
    watching = f"/api/v1/configmaps?watch=1&resourceVersion={old}&timeoutSeconds=5"
    cluster.kill_apiserver()
    cluster.start_apiserver()
    assert '"first"' in cluster.kubectl("get", "--raw", listing)

    cluster.kill_apiserver()
    assert cluster.compact_etcd() > int(old)
    cluster.start_apiserver()

    with pytest.raises(KubectlError, match=r"\(Expired\)"):
        cluster.kubectl("get", "--raw", listing)
    event = json.loads(cluster.kubectl("get", "--raw", watching))
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_it_runs_inside_a_network_namespace(kubernetes_binaries: Path, network_namespace: str) -> None:
    address = "10.100.0.2"
    add_address = ["ip", "-n", network_namespace, "address", "add", f"{address}/32", "dev", "lo"]
    subprocess.run(add_address, check=True)

    with Cluster(kubernetes_binaries, netns=network_namespace, bind_address=address) as cluster:
        assert cluster.url == "https://10.100.0.2:6443"
        assert get(cluster, "endpoints", "kubernetes")["subsets"][0]["addresses"] == [{"ip": address}]
        listening = ["ss", "--listening", "--tcp", "--numeric", "--no-header"]
        assert ":6443" not in subprocess.check_output(listening, text=True)


def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing(
    kubernetes_binaries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(ClusterError, match=r"(?s)kube-apiserver ended with status 1:.*no-such-flag"),
        Cluster(kubernetes_binaries, apiserver_flags=["--no-such-flag"]),
    ):
        pytest.fail("it cannot have started")
    assert list(tmp_path.iterdir()) == []
    assert processes_in(str(tmp_path)) == []


@pytest.fixture
def runner(kubernetes_binaries: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own that holds a cluster and prints the cluster's directory."""
    program = [sys.executable, "-c", RUN_UNTIL_KILLED, str(kubernetes_binaries)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_the_tests(runner: subprocess.Popen[str], ending: signal.Signals) -> None:
    assert runner.stdout is not None
    directory = runner.stdout.readline().strip()
    assert len(processes_in(directory)) == 2

    runner.send_signal(ending)
    runner.wait()

    assert eventually(lambda: processes_in(directory) == [])
    if ending == signal.SIGKILL:
        shutil.rmtree(directory)  # nobody was left to do it
    assert not Path(directory).exists()
