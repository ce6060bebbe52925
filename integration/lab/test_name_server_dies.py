"""A relay sees each question and its answer: when a name server dies, it asks the other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.lab.names import OVER, both_answer, who_answers
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import end_all, wait_until
from userproxy.lab.topology import DNS1, REFERENCE_WITH_DNS

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with cluster DNS, and a daemon on the client's host."""
    with Lab(f"{lab_name}-dies", deployment=REFERENCE_WITH_DNS, daemons=False) as made:
        made.start_daemon("host1")
        yield made


@OVER
def test_no_question_is_lost(lab: Lab, over: str) -> None:
    assert both_answer(lab, over)
    end_all([lab.namespace(DNS1.name)], grace=0.0)
    assert [who_answers(lab, over) for _ in range(8)] == ["dns2"] * 8
    assert lab.exec("client", "curl", "-sS", "http://server-service").stdout.startswith("server")
    lab.start_server(DNS1)
    lab.wait_for_server(DNS1)
    wait_until("dns1 is asked again", lambda: who_answers(lab, over) == "dns1", 20.0)
