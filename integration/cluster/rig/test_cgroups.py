"""Which cgroups a machine has, as /proc/self/cgroup tells it."""

from __future__ import annotations

import pytest

from integration.cluster.rig.cgroups import Hierarchies
from integration.kubernetes.processes import ClusterError

SEPARATE = "5:pids:/\n4:memory:/a/b\n3:cpuset:/\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n"


def test_version_1_is_used_where_it_has_what_a_kubelet_needs() -> None:
    found = Hierarchies.of(SEPARATE)
    assert found.v1 == ("pids", "memory", "cpuset", "cpu,cpuacct", "name=systemd")
    script = found.mount_script
    assert "mount -t cgroup -o cpu,cpuacct cgroup /sys/fs/cgroup/cpu,cpuacct" in script
    assert "ln -s cpu,cpuacct /sys/fs/cgroup/cpuacct" in script
    assert "mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd" in script


@pytest.mark.parametrize("text", ["0::/user.slice/session-1.scope\n", "1:name=systemd:/\n0::/\n"])
def test_version_2_is_used_otherwise(text: str) -> None:
    found = Hierarchies.of(text)
    assert found.v1 == ()
    assert "mount -t cgroup2 cgroup2 /sys/fs/cgroup" in found.mount_script


def test_a_kernel_without_the_controllers_is_told_of() -> None:
    with pytest.raises(ClusterError, match="no cgroup controllers cpuset, pids"):
        Hierarchies.of("2:cpu:/\n1:memory:/\n")
