"""Services from YAML and JSON files: one file, or the files of a directory, watched.

What is on disk is what is served, with two exceptions in favour of what works. A file that cannot be taken
keeps its last good content in effect, whole, and does not touch what other files hold. And where the file
named on the command line vanishes, or the whole directory, everything stays: Services are deleted by deleting
their file from the directory, or their object from the file.

In a directory only `*.yaml`, `*.yml` and `*.json` are read, none of its subdirectories, and no hidden file.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from userproxy.model.snapshot import Notice, Problem, Snapshot
from userproxy.sources.decode import EVERYTHING
from userproxy.sources.documents import MAX_BYTES, Manifest, ManifestError, decode_manifest
from userproxy.sources.index import ObjectIndex
from userproxy.sources.watch import DirectoryWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from userproxy.sources.decode import DecodedObject, ObjectKey, Scope

log = structlog.get_logger()

SUFFIXES = frozenset({".yaml", ".yml", ".json"})

_KUBELET_LINK = "..data"
"""What kubelet swaps to put a new version of a ConfigMap volume in place."""

_Signature = tuple[int, ...]


class ManifestSource:
    """The Services of one file or directory, for as long as the daemon runs.

    Attributes:
        kind: for `userproxy status`.
        synced: whether the path has been read at least once.
    """

    kind = "manifests"

    def __init__(
        self,
        path: Path,
        *,
        scope: Scope = EVERYTHING,
        debounce: float = 0.05,
        rescan: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make a source; nothing is read yet.

        Args:
            path: a file, or a directory, which may be missing for now.
            scope: what of it is served.
            debounce: seconds from one look at the files to the next, however fast they change.
            rescan: seconds after which to look even if nothing told of a change.
            clock: monotonic, in seconds.
            sleep: waits so many seconds.

        Raises:
            FileNotFoundError: path names a file by its suffix, and there is none.
        """
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links that change
        if self._path.suffix in SUFFIXES and not self._path.exists():
            raise FileNotFoundError(
                errno.ENOENT, "no such manifest: create it, or name a directory", str(path)
            )
        self._scope = scope
        self._debounce = debounce
        self._rescan = rescan
        self._clock = clock
        self._sleep = sleep
        self._files: dict[Path, _File] = {}
        self._index = ObjectIndex()
        self._indexed: dict[Path, Manifest] = {}  # what the index knows of each file
        self._claims: dict[ObjectKey, dict[Path, tuple[DecodedObject, int]]] = {}
        self._path_problem: Problem | None = None
        self._unsettled = False
        self._in_step_at = clock()
        self._in_step = False
        self.synced = False

    @property
    def problem(self) -> Problem | None:
        """Why the file or directory itself cannot be read."""
        return self._path_problem

    def stale_seconds(self) -> float:
        """How long ago what is on disk was last wholly in effect; 0 while it is."""
        return 0.0 if self._in_step else self._clock() - self._in_step_at

    def tell(self, _problems: Sequence[Problem]) -> None:
        """Files have nobody to tell; `userproxy status` and the log do."""

    def announce(self, _notice: Notice) -> None:
        """Likewise."""

    async def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Publish a Snapshot at once, and a new one after each change, until cancelled."""
        with DirectoryWatch() as watch:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watch.listen(), name="manifests: listen")
                await self._follow(watch, publish)

    async def _follow(self, watch: DirectoryWatch, publish: Callable[[Snapshot], None]) -> None:
        published: Snapshot | None = None
        while True:
            snapshot = await asyncio.to_thread(self.reload, watch.take())
            looked_at = self._clock()
            if snapshot is not published:
                publish(snapshot)
                published = snapshot
            self._watch(watch)
            if self._unsettled:
                watch.note()
            if await watch.changed(within=self._rescan):
                # The first change after a quiet time is read at once, those on its heels together.
                await self._sleep(max(0.0, looked_at + self._debounce - self._clock()))

    def _watch(self, watch: DirectoryWatch) -> None:
        links = [path for path in (self._path, *self._files) if path.is_symlink()]
        targets = [Path(os.path.realpath(link)) for link in links]
        ancestor = next(parent for parent in self._path.parents if parent.is_dir())
        watch.watch(
            [self._path, ancestor, *(target.parent for target in targets)],
            all_of={self._path},
            names={_KUBELET_LINK, *self._path.parts, *(part for target in targets for part in target.parts)},
        )

    def reload(self, touched: Collection[str] = ()) -> Snapshot:
        """Read what has changed on disk; the very same Snapshot as the last time if nothing has.

        Blocks while it reads and decodes, so that it belongs in a thread; one call at a time.

        Args:
            touched: names of files to read even if they look unchanged.
        """
        self._unsettled = False
        try:
            paths = self._listing()
        except OSError as failure:
            self._note_path_problem(failure)
        else:
            self._path_problem = None
            for path in self._files.keys() - set(paths):
                self._forget(path)
            for path in paths:
                self._load(path, forced=path.name in touched)
            self.synced = True
        self._in_step = not self._path_problem and not any(file.problem for file in self._files.values())
        if self._in_step:
            self._in_step_at = self._clock()
        self._reindex()
        return self._index.snapshot()

    def _listing(self) -> list[Path]:
        if not stat.S_ISDIR(self._path.stat().st_mode):
            return [self._path]
        return sorted(
            path for path in self._path.iterdir() if path.suffix in SUFFIXES and path.name[0] != "."
        )

    def _note_path_problem(self, failure: OSError) -> None:
        what = "what it held stays in effect" if self.synced else "nothing is served until it is there"
        problem = Problem(str(self._path), "ManifestsMissing", f"{failure.strerror}; {what}")
        if problem != self._path_problem:
            log.error("manifests cannot be read", path=str(self._path), error=failure.strerror, effect=what)
        self._path_problem = problem

    def _forget(self, path: Path) -> None:
        del self._files[path]
        self._index.report(str(path), ())
        log.info("manifest is gone", file=str(path))

    def _load(self, path: Path, *, forced: bool) -> None:
        """Bring one file up to date, or note why that cannot be."""
        file = self._files.setdefault(path, _File())
        try:
            signature, data = _read(path, None if forced else file.signature)
        except FileNotFoundError as failure:
            if path.is_symlink() or path == self._path:
                file.refuse(path, ManifestError(failure.strerror or "is gone"))
            else:
                self._forget(path)
        except OSError as failure:
            file.refuse(path, ManifestError(failure.strerror or str(failure)))
        except ManifestError as failure:
            file.refuse(path, failure)
        except _ChangingError:
            self._unsettled = True
        else:
            if data is not None:
                file.take(path, data, self._scope)
            file.signature = signature

    def _reindex(self) -> None:
        """Put into the index what differs; of objects in two files, that of the first file counts.

        Only the objects of files that changed are looked at, whoever else has them too.
        """
        for path in [*self._files, *(self._indexed.keys() - self._files.keys())]:
            good = self._files[path].good if path in self._files else Manifest()
            before = self._indexed.get(path, Manifest())
            if good is not before:
                self._indexed[path] = good
                self._reindex_file(path, before, good)
        for path in self._indexed.keys() - self._files.keys():
            del self._indexed[path]
        for path, file in self._files.items():
            duplicates = [_duplicate(key, min(self._claims[key]), path) for key in file.second]
            self._index.report(str(path), [*file.problems, *duplicates])
        self._index.report("", [self._path_problem] if self._path_problem else [])

    def _reindex_file(self, path: Path, before: Manifest, good: Manifest) -> None:
        for found in before.objects:
            del self._claims[found.key][path]
        for position, found in enumerate(good.objects):
            self._claims.setdefault(found.key, {})[path] = found, position
        for key in {found.key for manifest in (before, good) for found in manifest.objects}:
            claims = self._claims[key]
            if not claims:
                del self._claims[key]
                self._index.remove(key)
                continue
            owner = min(claims)
            found, position = claims[owner]
            self._index.put(found, (str(owner), position))
            for claimant in {*claims, path} & self._files.keys():
                second = self._files[claimant].second
                if claimant in claims and claimant != owner:
                    second.add(key)
                else:
                    second.discard(key)
        if path in self._files:
            self._files[path].second &= {found.key for found in good.objects}


class _File:
    """What is known of one file."""

    def __init__(self) -> None:
        self.second: set[ObjectKey] = set()  # its objects that count for nothing, as another file has them
        self.signature: _Signature | None = None
        self.good = Manifest()
        self.problem: Problem | None = None
        self._digest = b""
        self._was_good = False

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What its author should know of it."""
        return (*self.good.problems, self.problem) if self.problem else self.good.problems

    def take(self, path: Path, data: bytes, scope: Scope) -> None:
        """Decode new content; what cannot be decoded leaves the good content as it was."""
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest == self._digest:
            return
        self.problem = None
        try:
            self.good = decode_manifest(data, is_json=path.suffix == ".json", scope=scope)
        except ManifestError as failure:
            self.refuse(path, failure)
        else:
            self._was_good = True
            log.info("manifest loaded", file=str(path), objects=len(self.good.objects))
        self._digest = digest

    def refuse(self, path: Path, failure: ManifestError) -> None:
        """Note why the file is not taken, and say so once."""
        effect = "its last good state stays" if self._was_good else "nothing of it is served"
        problem = Problem(str(path), "BadManifest", f"{failure}; {effect}")
        if problem != self.problem:
            log.error(
                "manifest kept at its last good state" if self._was_good else "manifest is not served",
                file=str(path),
                document=failure.document,
                object=failure.subject,
                field=failure.field,
                error=failure.error,
            )
        self.problem, self._digest, self.signature = problem, b"", None


class _ChangingError(Exception):
    """A file was written while it was read."""


def _read(path: Path, known: _Signature | None) -> tuple[_Signature, bytes | None]:
    """The file's signature, and its bytes unless the signature is the known one.

    Raises:
        OSError: as of open(2) and read(2).
        ManifestError: it is no regular file, or too large.
        _ChangingError: it was written meanwhile.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ManifestError("is not a regular file")
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - a descriptor
        before = _signature(os.fstat(file.fileno()))
        if before == known:
            return before, None
        data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ManifestError(f"is larger than {MAX_BYTES >> 20} MiB: split it into several files")
        if before != _signature(os.fstat(file.fileno())):
            raise _ChangingError
    return before, data


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _duplicate(key: ObjectKey, owner: Path, path: Path) -> Problem:
    message = f"{key} stands in {owner} and in {path}: the first one counts, remove one of them"
    return Problem(f"{key.namespace}/{key.name}", "DuplicateObject", message)
