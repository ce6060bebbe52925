"""Redis and PostgreSQL through Services, with the clients that come with them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.programs import running
from integration.services import published
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab


@pytest.fixture
def postgres_directory() -> Iterator[Path]:
    """A directory of the user `postgres`, who may not enter those of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="userproxy-postgres-"))
    shutil.chown(directory, "postgres", "postgres")
    yield directory
    shutil.rmtree(directory)


def test_redis_benchmark(lab: Lab) -> None:
    redis = ("redis-server", "--port", "6379", "--save", "", "--protected-mode", "no")
    with (
        running(lab, "redis", "server1", 6379, *redis),
        published(lab, "redis", "10.3.241.91", [Address(SERVER1.ip, 6379)], port=6379) as frontend,
    ):
        where = ("-h", frontend.ip, "-p", str(frontend.port))
        told = lab.exec(
            "client",
            "redis-benchmark",
            *where,
            "-q",
            "-n",
            "50000",
            "-c",
            "50",
            "-P",
            "16",
            "-t",
            "set,get,lrange_100",
        ).stdout
        for line in told.replace("\r", "\n").splitlines():
            if "requests per second" in line:
                print("redis-benchmark:", line.strip())
        assert told.count("requests per second") >= 3
        text = "x" * 5_000_000
        lab.exec("client", "redis-cli", *where, "-x", "set", "big", stdin=text)
        assert lab.exec("client", "redis-cli", *where, "get", "big").stdout.strip() == text


def test_psql(lab: Lab, postgres_directory: Path) -> None:
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    data = postgres_directory / "data"
    as_postgres = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    subprocess.run(
        [*as_postgres, binaries / "initdb", "-D", data, "--auth=trust", "--no-sync"],
        check=True,
        capture_output=True,
    )
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write("host all all 10.0.0.0/8 trust\n")
    postgres = (*as_postgres, str(binaries / "postgres"), "-D", str(data), "-h", "*", "-p", "5432")
    with (
        running(lab, "postgres", "server2", 5432, *postgres, "-k", str(postgres_directory), "-F"),
        published(lab, "postgres", "10.3.241.92", [Address(SERVER2.ip, 5432)], port=5432) as frontend,
    ):
        where = ("-h", frontend.ip, "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1")

        def ready() -> bool:
            return lab.exec("client", "psql", *where, "-c", "select 1", check=False).stdout == "1\n"

        wait_until("postgres answers", ready, 15.0)
        script = """
            create table t as select n, md5(n::text) as m from generate_series(1, 100000) n;
            select count(*), max(length(m)) from t;
            select sum(length(m)) from t where n % 2 = 0;
        """
        assert lab.exec("client", "psql", *where, stdin=script).stdout.split() == ["100000|32", "1600000"]
        rows = lab.exec("client", "psql", *where, "-c", "copy t to stdout").stdout.splitlines()
        assert len(rows) == 100_000
        copied = lab.exec(
            "client",
            "psql",
            *where,
            "-c",
            "create table u (like t)",
            "-c",
            "copy u from stdin",
            stdin="\n".join(rows) + "\n",
        )
        assert copied.returncode == 0
        same = "select count(*) from t join u using (n, m)"
        assert lab.exec("client", "psql", *where, "-c", same).stdout == "100000\n"
        print("psql: 100,000 rows out and in again, all the same")
