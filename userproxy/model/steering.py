"""How the kernel is told which backend was chosen in userspace for a connection: by its first packet's mark.

The packet waits in a netfilter queue before conntrack has seen it. The verdict gives it a mark, by which the
nat rules find the pod: its index among those of the frontend. Behind dstnat the bits are cleared. All other
bits of the mark, and so those of kube-proxy (0x4000, 0x8000), stay as they came.
"""

from __future__ import annotations

MARK_BITS = 0x3FFF
"""Of a mark, those that are ours for as long as the packet has not passed dstnat."""

CHOSEN = 0x2000
"""That a choice was made; without it the rules choose, as on the path redirect-to-pod."""

INDEX_BITS = 0x1FFF
"""The pod: its index, from 0, among `ToPods.pods` and then `ToPods.others` of the frontend."""

REFUSED = 0x3FFF
"""The choice is to refuse: TCP RST, or ICMP port unreachable."""

MOST_PODS = 0x1FFF
"""So many pods of one frontend can be told apart; the index behind them is that of `REFUSED`."""

OUTSIDE = 0x0001
"""Of our bits while a packet waits: it is from outside, and for a frontend that only such packets have."""

FIRST_QUEUE = 30064
"""The number of the netfilter queue that the first steering process reads; the next one reads the next."""


def chosen(mark: int, index: int) -> int:
    """What a packet's mark becomes when the pod with this index was chosen for it."""
    return mark & ~MARK_BITS | CHOSEN | index


def refused(mark: int) -> int:
    """What it becomes when the packet is to be refused."""
    return mark & ~MARK_BITS | REFUSED
