"""The reasons for an end are a closed enumeration, and what each means is said."""

from __future__ import annotations

from userproxy.model.endings import ENDINGS, Reason


def test_each_reason_has_its_meaning() -> None:
    assert ENDINGS.keys() == set(Reason)


def test_a_meaning_is_one_sentence_that_a_listing_can_go_on_from() -> None:
    for reason, ending in ENDINGS.items():
        assert ending.text, reason
        assert not ending.text.endswith("."), reason
        assert "\n" not in ending.text, reason
