"""`scripts/deploy` is what a real API server takes, and gives the daemon no right that it does not need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.kubernetes.cluster import KubectlError

if TYPE_CHECKING:
    from integration.kubernetes.cluster import Cluster

DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"
NEEDED = {
    ("list", "services"),
    ("watch", "services"),
    ("list", "nodes"),
    ("watch", "nodes"),
    ("list", "endpointslices.discovery.k8s.io"),
    ("watch", "endpointslices.discovery.k8s.io"),
    ("create", "events.events.k8s.io"),
    ("patch", "events.events.k8s.io"),  # a series of NeedPods
}


def test_the_api_server_takes_it_all(cluster: Cluster) -> None:
    said = cluster.kubectl("apply", "--kustomize", str(DEPLOY), "--dry-run=server", "--validate=strict")
    print(said)
    kinds = [line.partition("/")[0] for line in said.splitlines()]
    assert kinds == [
        "serviceaccount",
        "clusterrole.rbac.authorization.k8s.io",
        "clusterrolebinding.rbac.authorization.k8s.io",
        "configmap",
        "daemonset.apps",
    ]
    with pytest.raises(KubectlError, match="NotFound"):
        cluster.kubectl("get", "--namespace=kube-system", "daemonset", "userproxy")


def test_the_role_grants_what_is_needed_and_no_more(cluster: Cluster) -> None:
    granted = {
        (verb, ".".join(filter(None, (resource, group))))
        for rule in dry_run(cluster, "ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == NEEDED


def test_the_container_has_few_privileges(cluster: Cluster) -> None:
    pod = dry_run(cluster, "DaemonSet")["spec"]["template"]["spec"]
    context = pod["containers"][0]["securityContext"]
    assert context["capabilities"] == {
        "drop": ["ALL"],
        "add": ["NET_ADMIN", "NET_RAW", "SETUID", "SETGID", "SETPCAP", "KILL"],
    }
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert not context.get("privileged")
    assert pod["hostNetwork"]
    assert not pod.get("hostPID")


def test_the_next_pod_starts_beside_the_one_that_runs_and_no_probe_ends_workers(cluster: Cluster) -> None:
    spec = dry_run(cluster, "DaemonSet")["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert "ports" not in container, "with hostNetwork they would be host ports, which two pods cannot have"
    assert "livenessProbe" not in container
    assert "startupProbe" not in container
    (ready,) = (each for each in container["args"] if each.startswith("--ready-file="))
    assert container["readinessProbe"]["exec"]["command"] == ["test", "-e", ready.partition("=")[2]]
    assert "--take-over=true" in container["args"]
    (drain,) = (each for each in container["args"] if each.startswith("--drain-seconds="))
    assert pod["terminationGracePeriodSeconds"] > float(drain.partition("=")[2]) + 10
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert container["resources"]["limits"] == {"memory": "1Gi"}


def dry_run(cluster: Cluster, kind: str) -> dict[str, Any]:
    """What the API server would make of the only object of a kind."""
    said = cluster.kubectl("apply", "--kustomize", str(DEPLOY), "--dry-run=server", "--output=json")
    (found,) = (each for each in json.loads(said)["items"] if each["kind"] == kind)
    return dict(found)
