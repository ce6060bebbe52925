"""Questions that the client of a lab asks cluster DNS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.topology import KUBE_DNS

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

NAME = "server-service.default.svc.cluster.local"
OVER = pytest.mark.parametrize("over", ["+notcp", "+tcp"])
"""The option of dig that says how it asks: by UDP or by TCP."""

_ENOUGH = 40


def dig(lab: Lab, *argv: str, member: str = "client") -> str:
    """What dig prints of an answer: one line for each record; it asks once, and waits for two seconds."""
    asked = lab.exec(member, "dig", "+short", "+tries=1", "+timeout=2", *argv)
    return asked.stdout.strip()


def who_answers(lab: Lab, *options: str, member: str = "client") -> str:
    """The name server that answers a question."""
    return dig(lab, *options, "CH", "TXT", "id.server", member=member).strip('"')


def both_answer(lab: Lab, *options: str, member: str = "client") -> bool:
    """Whether both name servers answer; where each is picked at random, one may do so many times in turn."""
    seen: set[str] = set()
    for _ in range(_ENOUGH):
        seen.add(who_answers(lab, *options, member=member))
        if seen == {pod.name for pod in KUBE_DNS.backends}:
            return True
    return False
