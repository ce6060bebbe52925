"""A real Prometheus (Debian's) follows a daemon, and our rules and our dashboard make sense to it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import yaml

from integration.programs import running
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"
RULES, DASHBOARD = DEPLOY / "prometheus-rules.yaml", DEPLOY / "grafana-dashboard.json"
PORT = 9090
PATIENCE_SECONDS = 30.0
CONFIGURATION = {
    "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
    "rule_files": [str(RULES)],
    "scrape_configs": [
        {"job_name": "userproxy", "static_configs": [{"targets": ["127.0.0.1:10249"]}]},
    ],
}


def promtool(*argv: str, stdin: str = "") -> str:
    """What it says, which is nothing while all is well but for a summary."""
    done = subprocess.run(
        ["promtool", *argv], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ask(lab: Lab, path: str, *queries: str) -> list[Any]:
    """What Prometheus answers to each query, or to the path alone."""
    base = f"http://127.0.0.1:{PORT}/api/v1/{path}"
    urls = [f"{base}?{urlencode({'query': query})}" for query in queries] or [base]
    lines = lab.exec("host1", "curl", "-s", "-w", "\\n", *urls).stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["status"] for answer in answers] == ["success"] * len(urls), answers
    return [answer["data"] for answer in answers]


def is_ready(lab: Lab) -> bool:
    """Whether it answers queries: it listens for a while before it does."""
    url = f"http://127.0.0.1:{PORT}/-/ready"
    return lab.exec("host1", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url).stdout == "200"


def value(lab: Lab, query: str) -> float | None:
    """The one value of a query; None while it has none."""
    found = ask(lab, "query", query)[0]["result"]
    return float(found[0]["value"][1]) if len(found) == 1 else None


def dashboard_queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [text.replace("$__rate_interval", "1m").replace("$node", ".*") for text in texts]


def test_rules_fire_when_they_are_to_and_not_otherwise() -> None:
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(Path(__file__).with_name("alerts.yaml")))


def test_each_alert_has_a_test() -> None:
    tests = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())["tests"]
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert [test["name"] for test in tests] == [rule["alert"] for rule in group["rules"]]


def test_a_prometheus_follows_the_daemon(lab: Lab, tmp_path: Path) -> None:
    lab.start_daemon("host1", "--metrics-per-service", "5")
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    lab.exec("client", "curl", "-s", f"http://{SERVER_SERVICE.frontend}")
    argv = (
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yaml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{PORT}",
    )
    with running(lab, "prometheus", "host1", PORT, *argv):
        wait_until("it is ready", lambda: is_ready(lab), PATIENCE_SECONDS)
        wait_until("it scrapes", lambda: value(lab, 'up{job="userproxy"}') == 1, PATIENCE_SECONDS)
        opened = 'userproxy_service_connections_opened_total{service="default/server-service"}'
        assert value(lab, opened) == 1
        assert (value(lab, 'userproxy_relayed_bytes_total{direction="down"}') or 0) > 50
        assert value(lab, 'userproxy_connections_ended_total{reason="failed"}') == 0
        lab.exec("client", "curl", "-s", f"http://{SERVER_SERVICE.frontend}")
        wait_until("it has seen the second", lambda: value(lab, opened) == 2, PATIENCE_SECONDS)
        assert value(lab, "userproxy_workers_heard") == value(lab, "userproxy_workers_wanted") == 1
        assert (value(lab, 'userproxy_worker_open_files{worker="0"}') or 0) > 5
        ask(lab, "query", *dashboard_queries())
        (rules,) = ask(lab, "rules")
        assert {rule["state"] for group in rules["groups"] for rule in group["rules"]} == {"inactive"}
        assert not any(rule.get("lastError") for group in rules["groups"] for rule in group["rules"])
    exposed = lab.exec("host1", "curl", "-s", "http://127.0.0.1:10249/metrics").stdout
    assert promtool("check", "metrics", stdin=exposed) == ""


@pytest.fixture(autouse=True)
def _promtool_is_there() -> None:
    """Said at once where scripts/install --dev has not been run."""
    promtool("--version")
