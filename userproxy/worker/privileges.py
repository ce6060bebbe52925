"""What our processes may do beyond what anybody may, and how they give the rest of it up.

| process | keeps | why |
|---|---|---|
| control | `CONTROL`, as far as it has been given that | see there |
| steering | `STEERING` | the kernel takes no answers for packets from anybody else |
| worker | nothing | strangers' bytes pass through it; what takes a privilege, the control side does for it |

A worker is also nobody: its user and group are its own, so it reads and writes no file of root's, and of what
the kernel grants each user, such as the memory of pipes, it has its own share. That takes three capabilities
of the control side (`OWN_USER`); without them, or where there is no other user (a user namespace of root
alone), workers stay root, without capabilities.

Sources: capabilities(7), credentials(7), prctl(2), capset(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger("userproxy.worker")


class Capability(enum.IntEnum):
    """Those that this program knows of, by their number in linux/capability.h."""

    DAC_READ_SEARCH = 2
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13


CONTROL = frozenset(
    {
        Capability.NET_ADMIN,  # nftables, conntrack, routes, marks, large socket buffers
        Capability.NET_RAW,  # to have connections end that the kernel carries (netfilter/ending)
        Capability.NET_BIND_SERVICE,  # where a port below 1024 is asked for
        Capability.DAC_READ_SEARCH,  # a kubeconfig or manifests that are another user's
        Capability.SETUID,  # a user of its own for each worker
        Capability.SETGID,
        Capability.KILL,  # to end workers, which are another user's then
        Capability.SETPCAP,  # to take capabilities out of reach for good
    }
)
"""What the control process keeps. A version that is started in its place (SIGHUP) gets no more than that."""

STEERING = frozenset({Capability.NET_ADMIN})
"""What a steering process keeps: no stranger's byte passes through it, but for headers of first packets."""

OWN_USER = frozenset({Capability.SETUID, Capability.SETGID, Capability.KILL})
"""What it takes to give workers users of their own, and to end them all the same."""

# Users that neither distributions nor systemd nor containers give to anybody (systemd.io/UIDS-GIDS), and that
# user namespaces with the usual 65536 users have.
_FIRST_USER = 60578
_USERS = 600

# linux/capability.h: the version with 64 bits, in two halves.
_VERSION = 0x20080522
_HEADER = struct.Struct("Ii")
_HALVES = struct.Struct("6I")

# linux/prctl.h
_SET_DUMPABLE = 4
_SET_KEEP_CAPABILITIES = 8
_BOUNDING_READ = 23
_BOUNDING_DROP = 24
_SET_NO_NEW_PRIVILEGES = 38

# What setfsuid(2) takes for no user: it changes nothing, and says who it is.
_NOBODY = ctypes.c_uint(0xFFFFFFFF)

_libc = ctypes.CDLL(None, use_errno=True)


class PrivilegesError(Exception):
    """Privileges could not be given up. One line."""


class _Sets(NamedTuple):
    """A thread's capabilities; bit n is the one with the number n."""

    effective: int
    permitted: int
    inheritable: int


def keep(wanted: frozenset[Capability]) -> frozenset[Capability]:
    """Give up all capabilities but these, for this process and for all that it starts. Returns those it has.

    To be called while there is one thread. Without `SETPCAP`, a program that root executes can have again
    what was given up here.

    Raises:
        PrivilegesError: the kernel refuses it.
    """
    mask = sum(1 << each for each in wanted)
    try:
        before = _read()
        _prctl(_SET_NO_NEW_PRIVILEGES, 1)
        if _has(before, Capability.SETPCAP):
            _bound(mask)
        _write(_Sets(*(each & mask for each in before)))
    except OSError as error:
        raise PrivilegesError(f"privileges cannot be given up: {error}") from None
    return frozenset(each for each in wanted if _has(before, each))


def give_up_all(but: frozenset[Capability] = frozenset()) -> None:
    """Give up everything: capabilities but these, getting any by executing a program, root's files, dumps.

    To be called while there is one thread.

    Raises:
        PrivilegesError: the kernel refuses it; some of it may have been done.
    """
    try:
        before = _read()
        _prctl(_SET_NO_NEW_PRIVILEGES, 1)
        mask = sum(1 << each for each in but)
        if _has(before, Capability.SETPCAP):
            _bound(mask)
        _prctl(_SET_KEEP_CAPABILITIES, bool(but))  # becoming another user
        own = _FIRST_USER + os.getpid() % _USERS
        if os.geteuid() == 0 and all(_has(before, each) for each in OWN_USER) and _exists(own):
            os.setgroups([])
            os.setresgid(own, own, own)
            os.setresuid(own, own, own)
        kept = before.permitted & mask
        _write(_Sets(kept, kept, 0))  # and with those, the ambient ones
        _prctl(_SET_DUMPABLE, 0)
    except OSError as error:
        raise PrivilegesError(f"privileges cannot be given up: {error}") from None


@contextlib.contextmanager
def opening_for(user: int) -> Iterator[None]:
    """Whatever this thread opens in the block is that user's: files, and sockets as netfilter sees them.

    Raises:
        PrivilegesError: without CAP_SETUID; what is in the block is not done.
    """
    before = _libc.setfsuid(ctypes.c_uint(user))
    try:
        if _libc.setfsuid(_NOBODY) != user:
            raise PrivilegesError(f"sockets of user {user} cannot be opened: CAP_SETUID is missing")
        yield
    finally:
        _libc.setfsuid(ctypes.c_uint(before))


def user_of(pid: int) -> int:
    """The user of a process, 0 if that is unknown."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("Uid:")[2].split()[0])


def give_up_all_or_end(but: frozenset[Capability] = frozenset()) -> None:
    """Give up everything but these, or end this process on the spot, and say why."""
    try:
        give_up_all(but)
    except PrivilegesError as error:
        log.critical("a worker ends: it is not to carry strangers' bytes as it is", error=str(error))
        os._exit(1)


def _has(sets: _Sets, capability: Capability) -> bool:
    return bool(sets.effective >> capability & 1)


def _exists(user: int) -> bool:
    """Whether this user namespace has such a user (user_namespaces(7))."""
    ranges = (line.split() for line in Path("/proc/self/uid_map").read_text().splitlines())
    return any(int(first) <= user < int(first) + int(count) for first, _, count in ranges)


def _bound(mask: int) -> None:
    """Take all others out of the bounding set: no program that is executed ever has them again."""
    capability = 0
    while _libc.prctl(_BOUNDING_READ, capability, 0, 0, 0) >= 0:  # -1 for a number that the kernel lacks
        if not mask >> capability & 1:
            _prctl(_BOUNDING_DROP, capability)
        capability += 1


def _read() -> _Sets:
    found = ctypes.create_string_buffer(_HALVES.size)
    _check(_libc.capget(_HEADER.pack(_VERSION, 0), found))
    low, high = struct.iter_unpack("3I", found.raw)
    return _Sets(*(one | other << 32 for one, other in zip(low, high, strict=True)))


def _write(sets: _Sets) -> None:
    low = (each & 0xFFFFFFFF for each in sets)
    high = (each >> 32 for each in sets)
    _check(_libc.capset(_HEADER.pack(_VERSION, 0), _HALVES.pack(*low, *high)))


def _prctl(option: int, argument: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


def _check(outcome: int) -> None:
    if outcome < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
