"""How the control process has the ends of a connection speak that the kernel carries: by packets of its own.

Such a packet stands in the other end's name. By this mark our rules know it, and keep conntrack from taking
it for one of the connection's. Only who has CAP_NET_ADMIN can give a socket one.
"""

from __future__ import annotations

PROBE_MARK = 0x75702000
"""Beside those of heartbeats and vouching."""

PROBE_BITS = 0xFFFFFF00
"""Of a mark, those that are `PROBE_MARK`."""
