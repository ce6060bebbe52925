"""Whose our table is: ours alone while the daemon lives, where the kernel can; nobody's once it is gone.

An owned table is changed by the netlink socket that owns it and by nobody else, and a flush of everything
passes it by (Linux 5.12). A persistent one stays when that socket is closed: as an orphan, which anybody may
change, delete, or own from then on (Linux 6.9).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.ruleset.language import TABLE
from userproxy.netfilter.wire import encode
from userproxy.netfilter.wire.netlink import RefusedError, attribute, attributes, string

if TYPE_CHECKING:
    from userproxy.netfilter.wire.netlink import Socket

# NFT_TABLE_F_... (linux/netfilter/nf_tables.h). pyroute2 does not know the last one.
_OWNER, _PERSIST = 0x02, 0x04
OWNED = _OWNER | _PERSIST
"""Of a table that others cannot change, and that stays."""

_PROBE = f"{TABLE}-probe"
_TABLE_NAME, _TABLE_FLAGS, _TABLE_OWNER = 1, 2, 7  # NFTA_TABLE_...
_UNKNOWN_FLAG = (errno.EOPNOTSUPP, errno.EINVAL)


class _Table(NamedTuple):
    flags: int
    owner: int  # the port of its owner's socket; 0 if there is none


class Ownership:
    """Of our table, by one socket. Its calls block, and raise RefusedError and OSError as the socket's do."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._flags: int | None = None

    @property
    def flags(self) -> int:
        """Those that our table is made with: 0 where the kernel knows no table that is owned and stays."""
        if self._flags is None:
            try:
                self._socket.batch([encode.table(OWNED, _PROBE)], commit=False)
            except RefusedError as error:
                if error.refusal.errno not in _UNKNOWN_FLAG:
                    raise
                self._flags = 0
            else:
                self._flags = OWNED
        return self._flags

    def take(self) -> bool:
        """Own the table if it is an orphan; returns whether it is as owned as it can be.

        A table that was made without an owner never gets one: it must be replaced. So it is with none.

        Raises:
            NetfilterError: another process owns it.
        """
        table = self._ours()
        if table and self.flags and table.flags & OWNED == _PERSIST:
            self._socket.batch([encode.table(OWNED)])
            table = _Table(OWNED, self._socket.port)
        return table is not None and table.flags & OWNED == self.flags

    def check(self) -> None:
        """See that we may change the table.

        Raises:
            NetfilterError: another process owns it.
        """
        self._ours()

    def is_ours(self) -> bool:
        """Whether nobody but this socket can have changed the table since it was taken."""
        table = self._read()
        return table is not None and table.flags & OWNED == OWNED and table.owner == self._socket.port

    def is_elsewhere(self) -> bool:
        """Whether another process owns the table."""
        return self._has_other_owner(self._read())

    def _ours(self) -> _Table | None:
        """The table, unless it is another process's."""
        table = self._read()
        if table and self._has_other_owner(table):
            raise NetfilterError(
                f"the nftables table inet {TABLE} belongs to another process (netlink port {table.owner}, "
                "which often is its pid): stop the userproxy that has it"
            )
        return table

    def _has_other_owner(self, table: _Table | None) -> bool:
        return table is not None and bool(table.flags & _OWNER) and table.owner != self._socket.port

    def _read(self) -> _Table | None:
        question = encode.request(nft.NFT_MSG_GETTABLE, attribute(_TABLE_NAME, string(TABLE)), "table")
        try:
            found = dict(attributes(self._socket.get(question), 4))
        except RefusedError as error:
            if error.refusal.errno == errno.ENOENT:
                return None
            raise
        flags, owner = (int.from_bytes(found.get(kind, b""), "big") for kind in (_TABLE_FLAGS, _TABLE_OWNER))
        return _Table(flags, owner)
