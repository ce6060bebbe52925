"""The reference is what the code says."""

from __future__ import annotations

from pathlib import Path

from userproxy.config import declared
from userproxy.config.reference import renewed

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_reference_is_current() -> None:
    page = PAGE.read_text()
    assert renewed(page) == page, "scripts/docs renews it"


def test_the_reference_has_every_setting() -> None:
    page = PAGE.read_text().partition("## With kube-proxy")[0]
    for setting in declared():
        assert page.count(f"\n| `{setting.key}` |") == 1
        assert setting.help in page


def test_a_setting_is_told_in_a_group() -> None:
    assert all(setting.group for setting in declared())
