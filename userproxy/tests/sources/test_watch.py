"""What is done to the files reaches a running source, by inotify, on the loop of the daemon."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from typing import TYPE_CHECKING

import pytest
import uvloop
import yaml

from userproxy.sources import manifests, watch
from userproxy.sources.manifests import ManifestSource
from userproxy.sources.watch import DirectoryWatch
from userproxy.tests.sources.objects import service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from userproxy.model.snapshot import Snapshot

NEVER = 3600.0


class Published:
    """The Snapshots that a source has published; `quiet` is set while it waits to be told of a change."""

    def __init__(self) -> None:
        self.quiet = asyncio.Event()
        self._arrived: asyncio.Queue[Snapshot] = asyncio.Queue()

    def __call__(self, snapshot: Snapshot) -> None:
        """Take one in."""
        self._arrived.put_nowait(snapshot)

    async def until(self, *services: str) -> Snapshot:
        """Wait until exactly these Services are served, and the source is quiet."""
        async with asyncio.timeout(20):
            while True:
                snapshot = await self._arrived.get()
                if sorted(name.service for name in snapshot.services) == sorted(services):
                    await self.quiet.wait()
                    return snapshot


class Watch(DirectoryWatch):
    """A watch that tells when its source is quiet."""

    published: Published

    async def changed(self, within: float) -> bool:
        """As of the base class."""
        if not self._changed.is_set():
            self.published.quiet.set()
        try:
            return await super().changed(within)
        finally:
            self.published.quiet.clear()


def run(
    path: Path,
    story: Callable[[Published], Awaitable[None]],
    *,
    rescan: float = NEVER,
    source_type: type[ManifestSource] = ManifestSource,
) -> None:
    """Let a source run on uvloop while the story is told; it learns of changes from the kernel alone."""

    async def main() -> None:
        published = Watch.published = Published()
        source = source_type(path, debounce=0, rescan=rescan)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(source.run(published))
            await story(published)
            running.cancel()

    uvloop.run(main())


@pytest.fixture(autouse=True)
def _tells_when_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "DirectoryWatch", Watch)


def write(path: Path, name: str) -> None:
    path.write_text(yaml.safe_dump(service(name)))


def test_writes_renames_and_deletions_in_a_directory(tmp_path: Path) -> None:
    directory, spare = tmp_path / "services", tmp_path / "elsewhere" / "spare"
    directory.mkdir()
    spare.parent.mkdir()

    async def story(published: Published) -> None:
        await published.until()
        write(directory / "a.yaml", "written")
        await published.until("written")
        write(directory / "a.yaml", "rewritten")
        await published.until("rewritten")
        write(spare, "renamed")
        spare.rename(directory / "a.yaml")
        await published.until("renamed")
        (directory / "a.yaml").unlink()
        await published.until()
        write(spare, "linked")
        (directory / "b.yaml").symlink_to(spare)
        await published.until("linked")
        write(spare, "behind-the-link")
        await published.until("behind-the-link")

    run(directory, story)


def test_a_config_map_volume_swaps_its_link(tmp_path: Path) -> None:
    for version in ("one", "two", "three"):
        (tmp_path / f"..{version}").mkdir()
        write(tmp_path / f"..{version}" / "a.yaml", version)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    def swap(version: str) -> None:
        (tmp_path / "..data_tmp").symlink_to(f"..{version}")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    async def story(published: Published) -> None:
        await published.until("one")
        swap("two")
        shutil.rmtree(tmp_path / "..one")
        await published.until("two")
        swap("three")
        await published.until("three")

    run(tmp_path, story)


def test_a_single_file_of_a_config_map_volume(tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / f"..{version}").mkdir()
        write(tmp_path / f"..{version}" / "a.yaml", version)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    async def story(published: Published) -> None:
        await published.until("one")
        (tmp_path / "..data_tmp").symlink_to("..two")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await published.until("two")

    run(tmp_path / "a.yaml", story)


def test_a_single_file_vanishes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    write(path, "first")

    async def story(published: Published) -> None:
        await published.until("first")
        path.unlink()
        assert (await published.until("first")).problems
        write(path, "second")
        await published.until("second")

    run(path, story)


def test_a_directory_appears_is_replaced_and_is_watched_again(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "services"

    async def story(published: Published) -> None:
        await published.until()
        directory.mkdir(parents=True)
        write(directory / "a.yaml", "first")
        await published.until("first")
        directory.rename(tmp_path / "old")
        directory.mkdir()
        write(directory / "a.yaml", "second")
        await published.until("second")
        write(directory / "a.yaml", "third")
        await published.until("third")

    run(directory, story)


def test_changes_are_found_by_looking_where_inotify_is_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watch, "Inotify", refused)

    async def story(published: Published) -> None:
        await published.until()
        write(tmp_path / "a.yaml", "found")
        await published.until("found")

    run(tmp_path, story, rescan=0.01)


def test_a_file_caught_while_it_is_written_is_read_soon_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.yaml", "settled")
    signatures = itertools.chain(range(10), itertools.repeat(10))
    monkeypatch.setattr(manifests, "_signature", lambda _: (next(signatures),))

    async def story(published: Published) -> None:
        await published.until("settled")

    run(tmp_path, story)


class Counting(ManifestSource):
    """A source that keeps, for each look at the disk, the names that it was told of."""

    looks: list[frozenset[str]]

    def reload(self, touched: Collection[str] = ()) -> Snapshot:
        """As of the base class."""
        self.looks.append(frozenset(touched))
        return super().reload(touched)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    monkeypatch.setattr(Counting, "looks", [], raising=False)
    return Counting.looks


def test_a_new_file_counts_when_its_writer_closes_it(tmp_path: Path, looks: list[frozenset[str]]) -> None:
    async def story(published: Published) -> None:
        await published.until()
        before = len(looks)
        with (tmp_path / "a.yaml").open("w"):
            write(tmp_path / "b.yaml", "other")
            await published.until("other")
        assert looks[before:] == [frozenset({"b.yaml"})]

    run(tmp_path, story, source_type=Counting)


def test_a_hard_link_counts_at_once(tmp_path: Path) -> None:
    directory = tmp_path / "services"
    directory.mkdir()
    write(tmp_path / "spare", "linked")

    async def story(published: Published) -> None:
        await published.until()
        (directory / "a.yaml").hardlink_to(tmp_path / "spare")
        await published.until("linked")

    run(directory, story)


def test_what_happens_beside_a_directory_does_not_wake_the_source(
    tmp_path: Path, looks: list[frozenset[str]]
) -> None:
    directory = tmp_path / "services"
    directory.mkdir()

    async def story(published: Published) -> None:
        await published.until()
        before = len(looks)
        for number in range(20):
            write(tmp_path / f"{number}.yaml", "beside")
        write(directory / "a.yaml", "inside")
        await published.until("inside")
        assert looks[before:] == [frozenset({"a.yaml"})]

    run(directory, story, source_type=Counting)


def test_a_directory_counts_as_changed_where_it_was_not_watched_before(tmp_path: Path) -> None:
    async def main() -> list[bool]:
        told = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        with DirectoryWatch() as directories:
            for name in ("one", "one", "two", "two", "one"):
                directories.watch([tmp_path / name], all_of=[tmp_path / name], names=())
                told.append(await directories.changed(within=0))
                directories.take()
        return told

    assert uvloop.run(main()) == [True, False, True, False, True]
