"""The page docs/conformance.md, out of the outcomes of a run against every proxy. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import TYPE_CHECKING

from integration.cluster.e2e.exceptions import by_reason
from integration.cluster.e2e.outcome import Result
from integration.cluster.e2e.selection import AREA, LEFT_OUT
from integration.cluster.rig.addresses import HOSTS, PODS, SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.cluster.e2e.outcome import Outcome
    from integration.cluster.rig.proxy import Proxy

_HEAD = """\
# Kubernetes' own tests

Made by `scripts/conformance` on {machine}. It runs the tests of Kubernetes {version} that
concern service proxies on a real cluster of three nodes, with each of these as the nodes' only proxy. See
[integration/cluster](../integration/cluster/README.md). Pods' DNS goes through the proxy too.
"""
_MARKS = {Result.PASSED: "pass", Result.FAILED: "**fail**", Result.SKIPPED: "skip"}


def page(outcomes: Mapping[Proxy, Mapping[str, Outcome]], machine: str, version: str) -> str:
    """The whole page, as Markdown.

    Args:
        outcomes: of each proxy, in the order of the columns, by test.
        machine: what it was run on, in one line.
        version: of Kubernetes.
    """
    tests = sorted({test for column in outcomes.values() for test in column})
    parts = [
        _HEAD.format(machine=machine, version=version),
        _summary(outcomes),
        *_exceptions(outcomes),
        "## Test by test\n\nWhy a test failed or was skipped, in the words of its log: [below](#why).\n",
        _grid(outcomes, tests),
        "## Why\n",
        *_reasons(outcomes, tests),
        "## Not run\n",
        "".join(f"- {_code(pattern)}: {why}.\n" for pattern, why in LEFT_OUT.items()),
    ]
    return "\n".join(parts)


def _summary(outcomes: Mapping[Proxy, Mapping[str, Outcome]]) -> str:
    rows = []
    for proxy, column in outcomes.items():
        counts = Counter(outcome.result for outcome in column.values())
        rows.append([proxy.value, *(str(counts[result]) for result in Result)])
    return _table(["proxy", *(result.value for result in Result)], rows, numbers=True)


def _exceptions(outcomes: Mapping[Proxy, Mapping[str, Outcome]]) -> list[str]:
    """A paragraph for each proxy and reason, with the tests."""
    parts = [
        f"**{proxy.value}**, {len(tests)} tests: {why or 'nobody knows yet why'}.\n\n"
        + "".join(f"- {_plain(test)}\n" for test in sorted(tests))
        for proxy, column in outcomes.items()
        for why, tests in by_reason(proxy, column.values()).items()
    ]
    return ["## What fails\n", *parts] if parts else []


def _grid(outcomes: Mapping[Proxy, Mapping[str, Outcome]], tests: list[str]) -> str:
    rows = []
    for test in tests:
        found = [column.get(test) for column in outcomes.values()]
        rows.append([_plain(test), *(_MARKS[each.result] if each else "-" for each in found)])
    return _table(["test", *(proxy.value for proxy in outcomes)], rows)


def _reasons(outcomes: Mapping[Proxy, Mapping[str, Outcome]], tests: list[str]) -> list[str]:
    parts = []
    for test in tests:
        reasons: dict[str, list[str]] = {}
        for proxy, column in outcomes.items():
            if test in column and column[test].result is not Result.PASSED:
                reasons.setdefault(general(column[test].reason), []).append(proxy.value)
        if reasons:
            lines = [f"- {', '.join(proxies)}: {_code(reason)}" for reason, proxies in reasons.items()]
            parts.append(f"**{_plain(test)}**\n\n" + "\n".join(lines) + "\n")
    return parts


def general(reason: str) -> str:
    """A reason without what differs from run to run: addresses by their kind, no namespace."""
    named = re.sub(r"\b\d+\.\d+\.\d+\.\d+\b", lambda found: _kind(found[0]), reason)
    named = re.sub(r"NODE-IP:3\d{4}", "NODE-IP:NODE-PORT", named)
    return re.sub(r" in namespace [a-z]+-\d+", "", named)


def _kind(ip: str) -> str:
    networks = {SERVICES: "CLUSTER-IP", PODS: "POD-IP", HOSTS: "NODE-IP"}
    address = ipaddress.ip_address(ip)
    return next((kind for cidr, kind in networks.items() if address in ipaddress.ip_network(cidr)), ip)


def _table(head: list[str], rows: list[list[str]], *, numbers: bool = False) -> str:
    rule = ["---", *(["---:" if numbers else "---"] * (len(head) - 1))]
    lines = ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]
    return "\n".join(lines) + "\n"


def _plain(test: str) -> str:
    """A test's name in a cell: without the area, and so that Markdown leaves it alone."""
    return test.removeprefix(AREA).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _code(text: str) -> str:
    """As code, whatever is in it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"
