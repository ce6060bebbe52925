"""The table as text: nft takes it, and it amounts to the same in the kernel."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from integration.netfilter.node import HOST_IP, LISTENER, SERVER1, SERVER2, VIP, Node
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, NodeState, Perimeter, Refuse, ToListener, ToPods
from userproxy.netfilter.elements.access import constant_elements
from userproxy.netfilter.elements.table import Elements
from userproxy.netfilter.elements.text import table_of
from userproxy.netfilter.nftables import NETLINK_NETFILTER
from userproxy.netfilter.ruleset.sets import SETS
from userproxy.netfilter.wire import read_back
from userproxy.netfilter.wire.netlink import Socket
from userproxy.tests.twins import twin

if TYPE_CHECKING:
    from userproxy.model.state import Target

TCP, OUTSIDE = Frontend(Protocol.TCP, VIP), Frontend(Protocol.TCP, VIP, outside=True)
OTHERS = tuple(Frontend(Protocol.UDP, Address("10.3.0.1", port)) for port in range(53, 57))
CAPTURES: dict[Frontend, Target] = {
    TCP: ToListener(LISTENER, behind=ToPods((SERVER1, SERVER2))),
    OUTSIDE: ToPods((SERVER1, SERVER2), masquerade=True, affinity=10_800.0),
    OTHERS[0]: ToPods((SERVER1,), most=100, most_per_client=5),
    OTHERS[1]: ToPods((SERVER1, SERVER2), affinity=30.0, steered=True, most=7),
    OTHERS[2]: Refuse(),
    OTHERS[3]: Drop(),
}
GUARD = Frontend(Protocol.TCP, LISTENER)
STATE = NodeState(
    captures=CAPTURES | {twin(frontend): twin(target) for frontend, target in CAPTURES.items()},
    guards=dict.fromkeys((GUARD, twin(GUARD))),
    cluster_ips=dict.fromkeys((VIP.ip, twin(VIP.ip))),
    ranges={OTHERS[0]: ("192.0.2.0/24", "198.51.100.7/32"), twin(OTHERS[0]): ("2001:db8::/48",)},
    pods=dict.fromkeys((SERVER1.ip, twin(SERVER2.ip), HOST_IP)),
    perimeter=Perimeter(uplinks=("eth0", "wlan0"), inside=("10.0.0.0/14", "fd00::/48")),
    workers=2,
)
"""Something of everything, in both families."""


def nft(node: Node, *arguments: str, text: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", node.names["host"], "nft", *arguments, "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nft_takes_the_table_and_the_kernel_then_holds_the_same_elements(node: Node) -> None:
    text = table_of(STATE)
    nft(node, "-c", text=text)
    nft(node, text=text)
    with node.inside("host"):
        socket = Socket(NETLINK_NETFILTER)
    try:
        held = set(read_back.read_elements(socket, [spec.name for spec in SETS]))
        chains = read_back.read_static(socket).chains
    finally:
        socket.close()
    elements = Elements(STATE)
    gaps = {each for each in held if each.chain == "?"}  # nft marks where nothing begins, too
    assert held - gaps == {*elements, *constant_elements()}
    assert {each.set for each in gaps} <= {"inside4", "inside6"}
    assert set(chains) >= {made.name for made in elements.made()}
