"""The rules as a reviewer reads them."""

from __future__ import annotations

import re

FIRST = """\
	counter turned-away {
	}

	ct timeout relayed4 {
		protocol tcp;
		l3proto ip
		policy = { close : 0 }
	}

	ct timeout relayed6 {
		protocol tcp;
		l3proto ip6
		policy = { close : 0 }
	}

	set protocols {
		type inet_proto
	}

	set uplinks {
		type ifname
	}

	set closed {
		type nf_proto
	}

	set alive {
		type mark
		size 1024
		flags dynamic,timeout
		timeout 2s
	}

	map relay {
		type nf_proto : verdict
	}

	map outside-relay {
		type nf_proto : verdict
	}

	map steer {
		type nf_proto : verdict
	}
"""

SETS_OF_IPV4 = """\
	set checked4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set refused4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set dropped4 {
		type ipv4_addr . inet_proto . inet_service
	}

	map limits4 {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	map listeners4 {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}

	map sizes4 {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	map pods4 {
		type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service
	}

	set masquerade4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set fallback4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set used4 {
		type ipv4_addr . inet_proto . inet_service
		size 65536
		flags dynamic,timeout
		timeout 60s
	}

	map members4 {
		type ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service : verdict
	}

	map affinity4 {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		size 65536
		flags dynamic,timeout
		timeout 10800s
	}

	set outside-checked4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set outside-refused4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set outside-dropped4 {
		type ipv4_addr . inet_proto . inet_service
	}

	map outside-limits4 {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	map outside-listeners4 {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}

	map outside-sizes4 {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	map outside-pods4 {
		type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service
	}

	set outside-masquerade4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set outside-fallback4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set outside-used4 {
		type ipv4_addr . inet_proto . inet_service
		size 65536
		flags dynamic,timeout
		timeout 60s
	}

	map outside-members4 {
		type ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service : verdict
	}

	map outside-affinity4 {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		size 65536
		flags dynamic,timeout
		timeout 10800s
	}

	set outside4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set ranged4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set ranges4 {
		type ipv4_addr . inet_proto . inet_service . ipv4_addr
		flags interval
	}

	set steered4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set inside4 {
		type ipv4_addr
		flags interval
	}

	set cluster-ips4 {
		type ipv4_addr
	}

	set guarded4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set hairpins4 {
		type ipv4_addr . ipv4_addr
	}

	set vacant4 {
		type ipv4_addr . inet_proto . inet_service
		size 65536
		flags dynamic,timeout
		timeout 2s
	}

	map clients4 {
		type uid : ipv4_addr
		size 1024
		flags dynamic,timeout
		timeout 1s
	}

	set counted4 {
		type ipv4_addr . inet_proto . inet_service . mark
		size 65536
		flags dynamic
	}

	set counted-clients4 {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service . mark
		size 65536
		flags dynamic
	}
"""

REFUSE = """\
	chain refuse {
		meta l4proto tcp reject with tcp reset
		reject
	}
"""

CHAINS_OF_IPV4 = """\
	chain check4 {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @ranged4 ip daddr . meta l4proto . th dport . ip saddr != @ranges4 drop
		meta l4proto @protocols meta mark & 0x00003fff == 0x00003fff ip daddr . meta l4proto . th dport @steered4 goto refuse
		meta l4proto @protocols ip daddr . meta l4proto . th dport @refused4 goto refuse
		meta l4proto @protocols ip daddr . meta l4proto . th dport @dropped4 drop
		meta l4proto @protocols ip daddr . meta l4proto . th dport vmap @limits4
	}

	chain outside-check4 {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @ranged4 ip daddr . meta l4proto . th dport . ip saddr != @ranges4 drop
		meta l4proto @protocols meta mark & 0x00003fff == 0x00003fff ip daddr . meta l4proto . th dport @steered4 goto refuse
		meta l4proto @protocols ip daddr . meta l4proto . th dport @outside-refused4 goto refuse
		meta l4proto @protocols ip daddr . meta l4proto . th dport @outside-dropped4 drop
		meta l4proto @protocols ip daddr . meta l4proto . th dport vmap @outside-limits4
	}

	chain deny4 {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @checked4 goto check4
	}

	chain outside-deny4 {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @outside-checked4 goto outside-check4
	}

	chain from-outside4 {
		meta l4proto @protocols ip daddr @cluster-ips4 meta nfproto @closed goto refuse
		meta l4proto @protocols ip daddr . meta l4proto . th dport @outside4 goto outside-deny4
		goto deny4
	}

	chain invalid4 {
		meta l4proto tcp ip saddr . ip saddr @hairpins4 drop
	}

	chain arriving4 {
		ct state invalid goto invalid4
		meta l4proto @protocols meta iifname @uplinks ip saddr != @inside4 goto from-outside4
		goto deny4
	}

	chain relayed4 {
		meta l4proto tcp ip daddr . meta l4proto . th dport @listeners4 ct timeout set "relayed4"
		meta l4proto @protocols ip daddr . meta l4proto . th dport != @vacant4 dnat ip to ip daddr . meta l4proto . th dport map @listeners4
	}

	chain outside-relayed4 {
		meta l4proto tcp ip daddr . meta l4proto . th dport @outside-listeners4 ct timeout set "relayed4"
		meta l4proto @protocols ip daddr . meta l4proto . th dport != @vacant4 dnat ip to ip daddr . meta l4proto . th dport map @outside-listeners4
	}

	chain capture4 {
		meta nfproto ipv4 meta l4proto @protocols meta nfproto vmap @relay
		meta l4proto @protocols ip daddr . meta l4proto . th dport vmap @sizes4
		meta l4proto @protocols dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @pods4
		meta l4proto @protocols dnat ip to ip daddr . meta l4proto . th dport map @listeners4
	}

	chain outside-capture4 {
		meta nfproto ipv4 meta l4proto @protocols meta nfproto vmap @outside-relay
		meta l4proto @protocols ip daddr . meta l4proto . th dport vmap @outside-sizes4
		meta l4proto @protocols dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @outside-pods4
		meta l4proto @protocols dnat ip to ip daddr . meta l4proto . th dport map @outside-listeners4
	}

	chain leaving4 {
		meta nfproto ipv4 meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @outside4 goto outside-leaving4
		meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr . th dport vmap @members4
		meta nfproto ipv4 meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @masquerade4 masquerade fully-random
		meta nfproto ipv4 meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @fallback4 masquerade
	}

	chain outside-leaving4 {
		meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr . th dport vmap @outside-members4
		meta nfproto ipv4 meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @outside-masquerade4 masquerade fully-random
		meta nfproto ipv4 meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @outside-fallback4 masquerade
	}

	chain sent4 {
		meta l4proto @protocols meta iifname @uplinks ip saddr != @inside4 goto leaving4
		meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr . th dport vmap @members4
		meta l4proto @protocols ip saddr . ip daddr @hairpins4 masquerade
		meta nfproto ipv4 meta l4proto @protocols meta iifname @uplinks ct original ip daddr . meta l4proto . ct original proto-dst @masquerade4 masquerade fully-random
		meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @fallback4 ip daddr . meta l4proto . th dport != @guarded4 masquerade
	}

	chain outside-staying4 {
		meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr . th dport vmap @outside-members4
	}

	chain staying4 {
		meta l4proto @protocols meta iifname @uplinks ip saddr != @inside4 ct original ip daddr . meta l4proto . ct original proto-dst @outside4 goto outside-staying4
		meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr . th dport vmap @members4
	}
"""  # noqa: E501 - as nft lists it

LAST = """\
	chain vouched {
		meta l4proto udp delete @clients4 { meta skuid : ip daddr }
		meta l4proto udp udp dport 9 update @clients4 { meta skuid : ip daddr } drop
		meta l4proto udp delete @clients6 { meta skuid : ip6 daddr }
		meta l4proto udp udp dport 9 update @clients6 { meta skuid : ip6 daddr } drop
		drop
	}

	chain keep-postrouting {
		type nat hook postrouting priority 95; policy accept;
		meta nfproto ipv4 meta l4proto tcp snat ip to meta skuid map @clients4
		meta nfproto ipv6 meta l4proto tcp snat ip6 to meta skuid map @clients6
	}

	chain beaten {
		meta l4proto udp udp dport 9 update @alive { meta mark } drop
		delete @alive { meta mark } drop
	}

	chain heart-output {
		type filter hook output priority -300; policy accept;
		meta mark 0x75700000/24 meta l4proto udp goto beaten
		meta mark 0x75701000/24 meta l4proto udp goto vouched
	}

	chain arriving {
		meta nfproto ipv4 meta l4proto @protocols goto arriving4
		meta nfproto ipv6 meta l4proto @protocols goto arriving6
	}

	chain asking {
		meta nfproto ipv4 meta l4proto @protocols goto deny4
		meta nfproto ipv6 meta l4proto @protocols goto deny6
	}

	chain deny-prerouting {
		type filter hook prerouting priority -110; policy accept;
		ct state invalid,new goto arriving
	}

	chain deny-output {
		type filter hook output priority -110; policy accept;
		ct state new goto asking
	}

	chain capture-prerouting {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto @protocols meta iifname @uplinks ip saddr != @inside4 ip daddr . meta l4proto . th dport @outside4 goto outside-capture4
		meta nfproto ipv4 meta l4proto @protocols goto capture4
		meta l4proto @protocols meta iifname @uplinks ip6 saddr != @inside6 ip6 daddr . meta l4proto . th dport @outside6 goto outside-capture6
		meta nfproto ipv6 meta l4proto @protocols goto capture6
	}

	chain capture-output {
		type nat hook output priority -100; policy accept;
		meta nfproto ipv4 meta l4proto @protocols goto capture4
		meta nfproto ipv6 meta l4proto @protocols goto capture6
	}

	chain unknown-prerouting {
		type nat hook prerouting priority -95; policy accept;
		meta l4proto @protocols ip daddr @cluster-ips4 goto refuse
		meta l4proto @protocols ip6 daddr @cluster-ips6 goto refuse
	}

	chain unknown-output {
		type nat hook output priority -95; policy accept;
		meta l4proto @protocols ip daddr @cluster-ips4 goto refuse
		meta l4proto @protocols ip6 daddr @cluster-ips6 goto refuse
	}

	chain lost {
		ct status confirmed accept
		drop
	}

	chain landing4 {
		socket transparent 0 accept
		meta l4proto @protocols ip daddr . meta l4proto . th dport @guarded4 ct original ip daddr . meta l4proto . ct original proto-dst @fallback4 update @vacant4 { ct original ip daddr . meta l4proto . ct original proto-dst } goto lost
		meta l4proto @protocols ip daddr . meta l4proto . th dport @guarded4 ct original ip daddr . meta l4proto . ct original proto-dst @outside-fallback4 update @vacant4 { ct original ip daddr . meta l4proto . ct original proto-dst } goto lost
	}

	chain landing6 {
		socket transparent 0 accept
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @guarded6 ct original ip6 daddr . meta l4proto . ct original proto-dst @fallback6 update @vacant6 { ct original ip6 daddr . meta l4proto . ct original proto-dst } goto lost
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @guarded6 ct original ip6 daddr . meta l4proto . ct original proto-dst @outside-fallback6 update @vacant6 { ct original ip6 daddr . meta l4proto . ct original proto-dst } goto lost
	}

	chain landing {
		meta nfproto ipv4 meta l4proto @protocols goto landing4
		meta nfproto ipv6 meta l4proto @protocols goto landing6
	}

	chain unasked {
		meta l4proto udp ip saddr . meta l4proto . th sport @guarded4 drop
		meta l4proto udp ip6 saddr . meta l4proto . th sport @guarded6 drop
	}

	chain guard-input {
		type filter hook input priority 0; policy accept;
		ct state established,related accept
		ct status dnat goto landing
		meta l4proto @protocols ip daddr . meta l4proto . th dport @guarded4 goto refuse
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @guarded6 goto refuse
	}

	chain guard-output {
		type filter hook output priority 0; policy accept;
		ct state new goto unasked
	}

	chain leaving-postrouting {
		type nat hook postrouting priority 100; policy accept;
		meta nfproto ipv4 meta l4proto @protocols ct status dnat goto sent4
		meta nfproto ipv6 meta l4proto @protocols ct status dnat goto sent6
	}

	chain staying-input {
		type nat hook input priority 100; policy accept;
		meta nfproto ipv4 meta l4proto @protocols ct status dnat goto staying4
		meta nfproto ipv6 meta l4proto @protocols ct status dnat goto staying6
	}

	chain limit-0-each-3 {
		ct status confirmed accept
		meta l4proto @protocols add @counted-clients4 { ip saddr . ip daddr . meta l4proto . th dport . numgen random mod 1 offset 3 ct count over 3 } counter name "turned-away" goto refuse
		meta l4proto @protocols add @counted-clients6 { ip6 saddr . ip6 daddr . meta l4proto . th dport . numgen random mod 1 offset 3 ct count over 3 } counter name "turned-away" goto refuse
	}

	chain limit-9-each-2 {
		ct status confirmed accept
		meta l4proto @protocols add @counted-clients4 { ip saddr . ip daddr . meta l4proto . th dport . numgen random mod 1 offset 2 ct count over 2 } counter name "turned-away" goto refuse
		meta l4proto @protocols add @counted4 { ip daddr . meta l4proto . th dport . numgen random mod 1 offset 9 ct count over 9 } counter name "turned-away" goto refuse
		meta l4proto @protocols add @counted-clients6 { ip6 saddr . ip6 daddr . meta l4proto . th dport . numgen random mod 1 offset 2 ct count over 2 } counter name "turned-away" goto refuse
		meta l4proto @protocols add @counted6 { ip6 daddr . meta l4proto . th dport . numgen random mod 1 offset 9 ct count over 9 } counter name "turned-away" goto refuse
	}

	chain outside-pin-for-10800 {
		meta l4proto @protocols update @outside-affinity4 { ip saddr . ct original ip daddr . meta l4proto . ct original proto-dst timeout 10800s : ip daddr . th dport }
		meta l4proto @protocols update @outside-affinity6 { ip6 saddr . ct original ip6 daddr . meta l4proto . ct original proto-dst timeout 10800s : ip6 daddr . th dport }
	}

	chain outside-relay-1 {
		meta nfproto ipv4 meta l4proto tcp meta mark & 0x75700000 | 0x75700000 == @alive goto outside-relayed4
		meta nfproto ipv4 meta l4proto udp meta mark & 0x75700000 | 0x75700000 == @alive goto outside-relayed4
		meta nfproto ipv6 meta l4proto tcp meta mark & 0x75700000 | 0x75700000 == @alive goto outside-relayed6
		meta nfproto ipv6 meta l4proto udp meta mark & 0x75700000 | 0x75700000 == @alive goto outside-relayed6
	}

	chain outside-sticky-pick-3 {
		meta l4proto @protocols update @outside-used4 { ip daddr . meta l4proto . th dport }
		meta l4proto @protocols dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @outside-affinity4
		meta l4proto @protocols dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @outside-pods4
		meta l4proto @protocols update @outside-used6 { ip6 daddr . meta l4proto . th dport }
		meta l4proto @protocols dnat ip6 to ip6 saddr . ip6 daddr . meta l4proto . th dport map @outside-affinity6
		meta l4proto @protocols dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 3 map @outside-pods6
	}

	chain pick-3 {
		meta l4proto @protocols update @used4 { ip daddr . meta l4proto . th dport } dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @pods4
		meta l4proto @protocols update @used6 { ip6 daddr . meta l4proto . th dport } dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 3 map @pods6
	}

	chain relay-2 {
		meta nfproto ipv4 meta l4proto tcp meta mark & 0x75700000 | 0x75700000 == @alive goto relayed4
		meta nfproto ipv4 meta l4proto tcp meta mark & 0x75700001 | 0x75700001 == @alive goto relayed4
		meta nfproto ipv4 meta l4proto udp meta mark & 0x75700000 | 0x75700000 == @alive meta mark & 0x75700001 | 0x75700001 == @alive goto relayed4
		meta nfproto ipv6 meta l4proto tcp meta mark & 0x75700000 | 0x75700000 == @alive goto relayed6
		meta nfproto ipv6 meta l4proto tcp meta mark & 0x75700001 | 0x75700001 == @alive goto relayed6
		meta nfproto ipv6 meta l4proto udp meta mark & 0x75700000 | 0x75700000 == @alive meta mark & 0x75700001 | 0x75700001 == @alive goto relayed6
	}

	chain steered-limit-7-each-0 {
		ct status confirmed accept
		meta l4proto @protocols add @counted4 { ip daddr . meta l4proto . th dport . numgen random mod 1 offset 7 ct count over 7 } meta mark & 0x00002000 == 0x00000000 counter name "turned-away" goto refuse
		meta l4proto @protocols add @counted6 { ip6 daddr . meta l4proto . th dport . numgen random mod 1 offset 7 ct count over 7 } meta mark & 0x00002000 == 0x00000000 counter name "turned-away" goto refuse
	}
"""  # noqa: E501 - as nft lists it


def of_ipv6(text: str) -> str:
    """What is there for IPv4 is there for IPv6, and reads alike."""
    for before, after in (
        ("ipv4", "ipv6"),
        ("ip saddr", "ip6 saddr"),
        ("ip daddr", "ip6 daddr"),
        ("dnat ip ", "dnat ip6 "),
    ):
        text = text.replace(before, after)
    return re.sub(r"(?<=[a-z])4\b", "6", text)


GOLDEN = (
    "table inet userproxy {\n"
    + "\n".join(
        (
            FIRST,
            SETS_OF_IPV4,
            of_ipv6(SETS_OF_IPV4),
            REFUSE,
            CHAINS_OF_IPV4,
            of_ipv6(CHAINS_OF_IPV4),
            LAST,
        )
    )
    + "}\n"
)
