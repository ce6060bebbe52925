"""Conversations between a reflector and an API server: what is asked, what the store is told."""

from __future__ import annotations

from typing import Any

import pytest

from userproxy.sources.kubernetes import wire
from userproxy.sources.kubernetes.backoff import Backoff
from userproxy.sources.kubernetes.failures import AccessError, GoneError
from userproxy.sources.kubernetes.reflector import Reflector, Resource
from userproxy.tests.sources.kubernetes.scripted import (
    Answer,
    OverError,
    RecordingStore,
    ScriptedServer,
    VirtualTime,
    bookmark,
    event,
    item,
    page,
    status,
)

WIDGETS = Resource("widgets", "/api/widgets", "WidgetList", {"labelSelector": "!x"}, page=2)


NO_PAGES = (
    b"",
    b"<html><body>Log in</body></html>",
    page(9, item("b"))[:-5],
    b"\xff\xfe\x00",
    b"\x1f\x8b\x08\x00garbage",
    b"[" * 100_000,
    b"{}",
    b"null",
    b"[]",
    b'{"items":[]}',
    b'{"metadata":{},"items":[]}',
    b'{"metadata":{"resourceVersion":""},"items":[]}',
    b'{"metadata":{"resourceVersion":9},"items":[]}',
    b'{"metadata":{"resourceVersion":"\xff"},"items":[]}',
    b'{"metadata":null,"items":null}',
    b'{"metadata":{"resourceVersion":"9"}}',
    b'{"metadata":{"resourceVersion":"9"},"items":{}}',
    b'{"kind":"GadgetList","metadata":{"resourceVersion":"9"},"items":[]}',
    b'{"kind":"Status","metadata":{},"status":"Failure","code":503}',
)
"""What answers a list, and is none."""

NAMELESS: tuple[Any, ...] = (
    7,
    None,
    [],
    {},
    {"metadata": None},
    {"metadata": {"namespace": "default"}},
    {"metadata": {"name": "no-namespace"}},
    {"metadata": {"namespace": "default", "name": 7}},
    {"metadata": {"namespace": "default", "name": "../../etc"}},
    {"metadata": {"namespace": "a/b:c", "name": "a"}},
)
"""Items of a list that cannot be told apart."""

NO_EVENTS = (
    b"<html>\n",
    b"[]\n",
    b"\xff\n",
    b"[" * 100_000 + b"\n",
    b'{"type":7,"object":{}}\n',
    b'{"type":"ADDED"}\n',
    b'{"type":"ADDED","object":1}\n',
    b'{"type":"DELETED","object":{"metadata":{}}}\n',
    b'{"type":"BOOKMARK","object":{"metadata":{}}}\n',
    b'{"type":"ERROR","object":7}\n',
    b'{"type":"ERROR","object":{"code":"410"}}\n',
)
"""Lines of a watch from which one cannot go on."""


class Conversation:
    """One run of a reflector through a script."""

    def __init__(self, *script: Answer) -> None:
        self.time = VirtualTime()
        self.server = ScriptedServer(*script, time=self.time)
        self.store = RecordingStore()
        self.errors: list[str] = []
        self.reflector = Reflector(
            WIDGETS,
            self.server,
            self.store,
            Backoff(lambda: 1.0),
            lambda reflector: self.errors.append(reflector.error),
            self.time.times,
        )

    async def run(self) -> str:
        """Go through the script; returns what the store was told."""
        with pytest.raises(OverError):
            await self.reflector.run()
        return " ".join(self.store.told)

    @property
    def versions(self) -> list[str]:
        """The resourceVersion of each watch."""
        return [query["resourceVersion"] for query in self.server.asked if "watch" in query]


async def test_list_then_watch() -> None:
    talk = Conversation(
        page(7, item("a"), item("b")),
        [event("ADDED", item("c", 8)), event("MODIFIED", item("a", 9)), event("DELETED", item("b", 10))],
    )
    assert await talk.run() == "+a +b | +c | +a | -b |"
    listing, watching, _ = talk.server.asked
    assert listing == {"path": "/api/widgets", "labelSelector": "!x", "limit": "2"}
    assert watching["resourceVersion"] == "7"
    assert (watching["allowWatchBookmarks"], watching["labelSelector"]) == ("true", "!x")
    assert 300 <= int(watching["timeoutSeconds"]) <= 600
    assert talk.versions == ["7", "10"]


async def test_pages_belong_together() -> None:
    talk = Conversation(page(7, item("a"), item("b"), more="token"), page(7, item("c")))
    assert await talk.run() == "+a +b +c |"
    assert [query.get("continue", "") for query in talk.server.asked] == ["", "token", ""]
    assert talk.reflector.synced


async def test_it_is_not_synced_before_the_last_page() -> None:
    talk = Conversation(page(7, item("a"), more="token"))
    assert await talk.run() == "+a"
    assert not talk.reflector.synced


async def test_an_empty_list_syncs_too() -> None:
    talk = Conversation(b'{"metadata":{"resourceVersion":"7"},"items":null}')
    assert await talk.run() == "|"
    assert talk.reflector.synced


async def test_an_expired_continue_token_restarts_the_list_and_leaves_no_ghost() -> None:
    talk = Conversation(page(7, item("a"), more="token"), GoneError("expired"), page(9, item("b")))
    assert await talk.run() == "+a +b -a |"


async def test_events_in_one_chunk_settle_once_and_split_lines_are_joined() -> None:
    both = event("ADDED", item("a", 8)) + event("ADDED", item("b", 9))
    third = event("ADDED", item("c", 10))
    talk = Conversation(page(7), [both + third[:5], third[5:]])
    assert await talk.run() == "| +a +b | +c |"


async def test_bookmarks_move_the_version_on() -> None:
    talk = Conversation(page(7), [bookmark(50)], [])
    await talk.run()
    assert talk.versions[:2] == ["7", "50"]


@pytest.mark.parametrize(
    "gone", [[status(410, "too old resource version")], GoneError("too old")], ids=["event", "answer"]
)
async def test_gone_lists_anew_and_tells_only_of_differences(gone: Answer) -> None:
    talk = Conversation(
        page(7, item("same"), item("changes"), item("goes")),
        gone,
        page(20, item("same"), item("changes", 15), item("comes", 16)),
    )
    assert await talk.run() == "+same +changes +goes | +changes +comes -goes |"


async def test_an_object_that_comes_again_unchanged_is_no_change() -> None:
    talk = Conversation(page(7, item("a", 5)), [event("ADDED", item("a", 5))])
    assert await talk.run() == "+a | |"


async def test_a_broken_watch_goes_on_where_it_was() -> None:
    broken = AccessError("hung up", unreachable=True)
    talk = Conversation(page(7), [event("ADDED", item("a", 8)), broken], [event("ADDED", item("b", 9))])
    assert await talk.run() == "| +a | +b |"
    assert talk.versions == ["7", "8", "9"]
    assert talk.errors[:2] == ["hung up", ""]


async def test_it_waits_longer_while_nobody_answers_and_says_so_once() -> None:
    refused = AccessError("refused", unreachable=True)
    talk = Conversation(refused, refused, refused, page(7), [])
    await talk.run()
    assert [round(pause, 2) for pause in talk.time.pauses[:3]] == [0.2, 0.3, 0.45]
    assert talk.errors[:2] == ["refused", ""]


async def test_staleness_is_counted_while_out_of_touch() -> None:
    refused = AccessError("refused", unreachable=True)
    talk = Conversation(page(7), refused, refused)
    await talk.run()
    assert talk.reflector.stale_seconds() == pytest.approx(0.5)


async def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause() -> None:
    talk = Conversation(page(7), [], [], [])
    await talk.run()
    assert [round(pause, 2) for pause in talk.time.pauses] == [0.2, 0.3, 0.45]
    assert talk.errors[0] == "the watch of widgets from https://api ends within 5 s"


async def test_a_watch_that_is_short_time_and_again_is_one_trouble_until_one_lasts() -> None:
    talk = Conversation(page(7), [], [], [], [], [10.0, bookmark(8)])
    await talk.run()
    short = "the watch of widgets from https://api ends within 5 s"
    assert talk.errors == [short, "", short, ""]


@pytest.mark.parametrize("body", NO_PAGES)
async def test_a_list_that_is_none_takes_nothing_away_and_is_asked_for_again(body: bytes) -> None:
    gone = GoneError("too old")
    talk = Conversation(page(7, item("a")), gone, body, body)
    assert await talk.run() == "+a |"
    assert talk.errors[-1].startswith("the list of widgets from https://api is not understood: ")
    assert [round(pause, 2) for pause in talk.time.pauses] == [0.2, 0.3, 0.45]
    assert talk.reflector.stale_seconds() == pytest.approx(0.95)


@pytest.mark.parametrize("body", NO_PAGES)
async def test_after_a_list_that_was_none_the_next_one_counts(body: bytes) -> None:
    talk = Conversation(body, page(8, item("a")), [])
    assert await talk.run() == "+a |"
    assert talk.errors[1] == ""


async def test_a_list_without_items_is_an_empty_one() -> None:
    nothing = b'{"kind":"WidgetList","metadata":{"resourceVersion":"9"},"items":null}'
    talk = Conversation(page(7, item("a")), GoneError("too old"), nothing)
    assert await talk.run() == "+a | -a |"


async def test_a_page_that_leads_to_itself_is_no_page() -> None:
    talk = Conversation(page(7, more="x"), page(7, more="x"))
    await talk.run()
    assert "leads to the same page again" in talk.reflector.error


@pytest.mark.parametrize("nameless", NAMELESS)
async def test_an_object_without_a_name_costs_nothing_but_itself(nameless: Any) -> None:  # noqa: ANN401 - any JSON
    talk = Conversation(
        page(7, item("a")),
        GoneError("too old"),
        page(8, nameless, item("b")),
        [bookmark(9)],
        page(10, item("b")),
    )
    assert await talk.run() == "+a | +b 1! | | -a |", (
        "what may be a itself leaves a where it is, for one watch"
    )


async def test_an_object_of_which_only_the_name_makes_sense_is_told() -> None:
    odd = {"metadata": {"namespace": "default", "name": "odd", "resourceVersion": 7}}
    assert await Conversation(page(7, odd), [event("MODIFIED", odd)]).run() == "+odd | +odd |"


@pytest.mark.parametrize("line", NO_EVENTS)
async def test_a_watch_that_is_not_understood_lists_anew(line: bytes) -> None:
    talk = Conversation(page(7, item("a")), [line], page(8, item("a")))
    assert await talk.run() == "+a | |"
    assert talk.errors[0].startswith("the watch of widgets from https://api ")
    assert [round(pause, 2) for pause in talk.time.pauses[:1]] == [0.2]


async def test_a_line_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_LINE", 1 << 20)
    talk = Conversation(page(7), [b"x" * 65536] * 17, page(8))
    await talk.run()
    assert "a line of more than 1 MiB" in talk.errors[0]


async def test_an_error_of_the_watch_is_told_and_it_goes_on() -> None:
    talk = Conversation(page(7), [status(500, "etcd is gone")], [])
    await talk.run()
    assert "the watch of widgets from https://api failed: etcd is gone" in talk.errors
    assert talk.versions[:2] == ["7", "7"]
