"""The nat tables of the old iptables, which nftables does not list: read as iptables-legacy does.

linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h: a table is one run of entries. A chain of
the user's begins behind an entry with the target ERROR, which bears its name; a jump leads to the offset of a
chain's first entry.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.bypass.rules import (
    EVERY_ADDRESS,
    IPV4,
    IPV6,
    Destinations,
    Line,
    is_translating_target,
    number_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from userproxy.netfilter.bypass.rules import Lookup

TABLE = "nat"
BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
"""In the order of the hooks."""
HOOKS = ("PREROUTING", "OUTPUT")
"""Those where destinations are translated."""

_TABLES = Path("/proc/thread-self/net")
_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, and those of IP6T alike
_INFO = struct.Struct("=32sI5I5III")  # struct ipt_getinfo: hooks, entry points, underflows, entries, bytes
_REQUEST = struct.Struct("=32sI4x")  # struct ipt_get_entries
_OFFSETS = struct.Struct("=HH")
_EXTENSION = struct.Struct("=H29sB")  # struct xt_entry_match and xt_entry_target, before their data
_VERDICT = struct.Struct("=i")
_PORTS = struct.Struct("=4H")
_DESTINATION_INVERTED, _PROTOCOL_INVERTED = 0x10, 0x40
_END = b"ERROR"


class Layout(NamedTuple):
    """What differs between the tables of the two families.

    Attributes:
        family: NFPROTO_...
        tables: where the kernel says which tables there are.
        domain: of a socket to ask by.
        level: of its options.
        ip: struct ipt_ip, ip6t_ip6: destination, its mask, protocol, flags, inversions.
        address: bytes of an address: it begins with the source, and two on with that one's mask.
        entry: bytes of struct ipt_entry, ip6t_entry.
        offsets: where in it it says where its target and its end are.
    """

    family: int
    tables: str
    domain: int
    level: int
    ip: struct.Struct
    address: int
    entry: int
    offsets: int


LAYOUT4 = Layout(
    IPV4,
    "ip_tables_names",
    socket.AF_INET,
    socket.IPPROTO_IP,
    ip=struct.Struct("=4x4s4x4s64xHBB"),
    address=4,
    entry=112,
    offsets=88,
)
LAYOUT6 = Layout(
    IPV6,
    "ip6_tables_names",
    socket.AF_INET6,
    socket.IPPROTO_IPV6,
    ip=struct.Struct("=16x16s16x16s64xHxBB"),
    address=16,
    entry=168,
    offsets=140,
)
_INTERFACES = 64
_BATCH = 100


class Legacy:
    """The way to the table of a family, in the network namespace of the thread that makes the object."""

    def __init__(self, layout: Layout = LAYOUT4) -> None:
        """Open a socket, of any kind; nothing is read."""
        self._layout = layout
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):  # no such family, and no such tables
            self._socket = socket.socket(layout.domain, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def info(self) -> bytes:
        """Tells one state of the table from the next; empty if there is no table.

        Raises:
            OSError: it cannot be read.
        """
        # To ask the kernel for a table that is not there would make it.
        try:
            if self._socket is None or TABLE not in (_TABLES / self._layout.tables).read_text().split():
                return b""
        except OSError:  # a kernel without any, or no permission
            return b""
        return self._ask(_GET_INFO, TABLE.encode().ljust(_INFO.size, b"\0"))

    def read(self, info: bytes) -> LegacyRules:
        """The table in this state.

        Raises:
            OSError: it cannot be read, or was changed meanwhile.
        """
        _, hooks, *entry_points, _, _, _, _, _, _, size = _INFO.unpack(info)
        packed = self._ask(_GET_ENTRIES, _REQUEST.pack(TABLE.encode(), size) + bytes(size))[_REQUEST.size :]
        starts = zip(BUILT_IN, entry_points, strict=True)
        used = {name: start for hook, (name, start) in enumerate(starts) if hooks >> hook & 1}
        return LegacyRules(packed, used, self._layout)

    def _ask(self, option: int, question: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(question, len(question))
        length = ctypes.c_uint32(len(question))
        number = self._socket.fileno() if self._socket else -1
        if self._libc.getsockopt(number, self._layout.level, option, buffer, ctypes.byref(length)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return buffer.raw


class LegacyRules:
    """The rules of the table, read as they are asked for.

    Args:
        packed: the whole table.
        entry_points: by built-in chain, the offset of its first rule.
        layout: of the table.
    """

    def __init__(self, packed: bytes, entry_points: dict[str, int], layout: Layout = LAYOUT4) -> None:
        self._packed = packed
        self._layout = layout
        self._starts = dict(entry_points)
        offset = number = 0
        while offset < len(packed):
            number += 1
            if number % _BATCH == 0:
                time.sleep(0)  # lets go of the interpreter: the event loop waits for it
            target, end = self._offsets(offset)
            if self._name(offset + target) == _END:
                name = _text(packed[offset + target + _EXTENSION.size : offset + end])
                self._starts.setdefault(name, offset + end)
            offset += end
        self._names = {start: name for name, start in self._starts.items()}

    def lines(self, chain: str) -> Sequence[Line]:
        """The rules of a chain."""
        found: list[Line] = []
        offset = self._starts.get(chain, len(self._packed))
        while offset < len(self._packed):
            target, end = self._offsets(offset)
            if self._name(offset + target) == _END or (found and offset in self._names):
                break
            found.append(self._line(offset, target, end))
            offset += end
        return found

    def elements(self, lookup: Lookup) -> Iterable[tuple[Destinations | None, str]]:
        """Of sets, which this table has none of."""
        raise LookupError(lookup.set)

    def _line(self, offset: int, target: int, end: int) -> Line:
        layout, size = self._layout, self._layout.address
        every = EVERY_ADDRESS[layout.family]
        destination, mask, protocol, _, inverted = layout.ip.unpack_from(self._packed, offset)
        low, bits = int.from_bytes(destination, "big"), int.from_bytes(mask, "big")
        bounds = (low & bits, low | ~bits & (1 << 8 * size) - 1)
        first, last = (number_of(each.to_bytes(size, "big")) for each in bounds)
        named = every if inverted & _DESTINATION_INVERTED else (first, last)
        if inverted & _PROTOCOL_INVERTED:
            protocol = 0
        port, sure = self._ports(offset + layout.entry, offset + target)
        rest = Destinations(*every, protocol, port)
        source_mask, interfaces = offset + 2 * size, offset + 4 * size
        asks_more = (
            bool(inverted)
            or any(self._packed[offset : offset + size])
            or any(self._packed[source_mask : source_mask + size])
            or any(self._packed[interfaces : interfaces + _INTERFACES])
        )
        name, at = self._name(offset + target), offset + target + _EXTENSION.size
        chain = ""
        if not name and at + _VERDICT.size <= offset + end:
            (verdict,) = _VERDICT.unpack_from(self._packed, at)
            chain = self._names.get(verdict, "") if verdict >= 0 else ""
        return Line(
            None if named == every else rest._replace(first=named[0], last=named[1]),
            rest,
            sure and not asks_more,
            (),
            chain,
            is_translating_target(name),
        )

    def _ports(self, offset: int, end: int) -> tuple[int, bool]:
        """The one destination port that the matches ask for, else 0; and whether they ask for no more."""
        port, sure = 0, True
        while offset < end:
            size, name, _ = _EXTENSION.unpack_from(self._packed, offset)
            if name.rstrip(b"\0") in (b"tcp", b"udp"):
                _, _, lowest, highest = _PORTS.unpack_from(self._packed, offset + _EXTENSION.size)
                port = lowest if lowest == highest else 0
                sure &= port != 0 or (lowest, highest) == (0, 0xFFFF)
            else:
                sure &= name.startswith(b"comment\0")
            if not size:
                break
            offset += size
        return port, sure

    def _offsets(self, offset: int) -> tuple[int, int]:
        """Where the entry's target and its end are, both from its beginning."""
        target, end = _OFFSETS.unpack_from(self._packed, offset + self._layout.offsets)
        if not end:
            raise OSError(0, "the nat table of iptables makes no sense")
        return target, end

    def _name(self, offset: int) -> bytes:
        name: bytes = _EXTENSION.unpack_from(self._packed, offset)[1]
        return name.split(b"\0", 1)[0]


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")
