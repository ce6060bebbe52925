"""What is added with the first steered frontend, as a reviewer reads it."""

from __future__ import annotations

GOLDEN_STEERED = """\
table inet userproxy {
	chain ask {
		meta mark set meta mark & 0xffffc000
		meta nfproto vmap @steer
	}

	chain outside-ask {
		meta mark set meta mark & 0xffffc001 | 0x00000001
		meta nfproto vmap @steer
	}

	chain asked4 {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @ranged4 ip daddr . meta l4proto . th dport . ip saddr != @ranges4 accept
		meta l4proto @protocols meta iifname @uplinks ip saddr != @inside4 ip daddr @cluster-ips4 meta nfproto @closed accept
		meta l4proto @protocols meta iifname @uplinks ip saddr != @inside4 ip daddr . meta l4proto . th dport @outside4 goto outside-ask
		goto ask
	}

	chain asked6 {
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @ranged6 ip6 daddr . meta l4proto . th dport . ip6 saddr != @ranges6 accept
		meta l4proto @protocols meta iifname @uplinks ip6 saddr != @inside6 ip6 daddr @cluster-ips6 meta nfproto @closed accept
		meta l4proto @protocols meta iifname @uplinks ip6 saddr != @inside6 ip6 daddr . meta l4proto . th dport @outside6 goto outside-ask
		goto ask
	}

	chain ask-arriving {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @steered4 goto asked4
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @steered6 goto asked6
	}

	chain ask-own {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @steered4 ip daddr . meta l4proto . th dport @ranged4 ip daddr . meta l4proto . th dport . ip saddr != @ranges4 accept
		meta l4proto @protocols ip daddr . meta l4proto . th dport @steered4 goto ask
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @steered6 ip6 daddr . meta l4proto . th dport @ranged6 ip6 daddr . meta l4proto . th dport . ip6 saddr != @ranges6 accept
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @steered6 goto ask
	}

	chain ask-prerouting {
		type filter hook prerouting priority -290; policy accept;
		meta l4proto tcp tcp flags syn / fin,syn,rst,ack goto ask-arriving
	}

	chain ask-udp-prerouting {
		type filter hook prerouting priority -150; policy accept;
		meta l4proto udp ct state new ct status confirmed accept
		meta l4proto udp ct state new goto ask-arriving
	}

	chain ask-output {
		type filter hook output priority -290; policy accept;
		meta l4proto tcp tcp flags syn / fin,syn,rst,ack goto ask-own
	}

	chain ask-udp-output {
		type filter hook output priority -150; policy accept;
		meta l4proto udp ct state new ct status confirmed accept
		meta l4proto udp ct state new goto ask-own
	}

	chain outside-chosen4 {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @steered4 dnat ip to ip daddr . meta l4proto . th dport . (meta mark & 0x00001fff) map @outside-pods4
	}

	chain outside-chosen6 {
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @steered6 dnat ip6 to ip6 daddr . meta l4proto . th dport . (meta mark & 0x00001fff) map @outside-pods6
	}

	chain chosen-arriving {
		meta l4proto @protocols meta iifname @uplinks ip saddr != @inside4 ip daddr . meta l4proto . th dport @outside4 goto outside-chosen4
		meta l4proto @protocols ip daddr . meta l4proto . th dport @steered4 dnat ip to ip daddr . meta l4proto . th dport . (meta mark & 0x00001fff) map @pods4
		meta l4proto @protocols meta iifname @uplinks ip6 saddr != @inside6 ip6 daddr . meta l4proto . th dport @outside6 goto outside-chosen6
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @steered6 dnat ip6 to ip6 daddr . meta l4proto . th dport . (meta mark & 0x00001fff) map @pods6
	}

	chain chosen-own {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @steered4 dnat ip to ip daddr . meta l4proto . th dport . (meta mark & 0x00001fff) map @pods4
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @steered6 dnat ip6 to ip6 daddr . meta l4proto . th dport . (meta mark & 0x00001fff) map @pods6
	}

	chain chosen-prerouting {
		type nat hook prerouting priority -101; policy accept;
		meta mark & 0x00002000 != 0x00000000 goto chosen-arriving
	}

	chain chosen-output {
		type nat hook output priority -101; policy accept;
		meta mark & 0x00002000 != 0x00000000 goto chosen-own
	}

	chain unmark {
		meta nfproto ipv4 meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @steered4 meta mark set meta mark & 0xffffc000
		meta l4proto @protocols ip daddr . meta l4proto . th dport @steered4 meta mark set meta mark & 0xffffc000
		meta nfproto ipv6 meta l4proto @protocols ct original ip6 daddr . meta l4proto . ct original proto-dst @steered6 meta mark set meta mark & 0xffffc000
		meta l4proto @protocols ip6 daddr . meta l4proto . th dport @steered6 meta mark set meta mark & 0xffffc000
	}

	chain settle {
		meta l4proto tcp tcp flags syn / fin,syn,rst,ack goto unmark
		meta l4proto udp ct state new goto unmark
	}

	chain settle-prerouting {
		type filter hook prerouting priority -90; policy accept;
		meta mark & 0x00003fff != 0x00000000 goto settle
	}

	chain settle-output {
		type filter hook output priority -90; policy accept;
		meta mark & 0x00003fff != 0x00000000 goto settle
	}

	chain withhold {
		meta nfproto ipv4 meta l4proto @protocols ct original ip daddr . meta l4proto . ct original proto-dst @steered4 ct direction reply ct status dying / assured,dying drop
		meta nfproto ipv6 meta l4proto @protocols ct original ip6 daddr . meta l4proto . ct original proto-dst @steered6 ct direction reply ct status dying / assured,dying drop
	}

	chain withhold-error {
		ct status seen-reply accept
		meta nfproto ipv4 ct protocol tcp ct original ip daddr . ct protocol . ct original proto-dst @steered4 ct direction reply drop
		meta nfproto ipv6 ct protocol tcp ct original ip6 daddr . ct protocol . ct original proto-dst @steered6 ct direction reply drop
	}

	chain withhold-prerouting {
		type filter hook prerouting priority -149; policy accept;
		meta l4proto tcp tcp flags rst,ack / rst,ack goto withhold
		ct state related goto withhold-error
	}

	chain withhold-output {
		type filter hook output priority -149; policy accept;
		meta l4proto tcp tcp flags rst,ack / rst,ack goto withhold
		ct state related goto withhold-error
	}

	chain queue-2 {
		queue flags bypass to 30064-30065
	}
}
"""  # noqa: E501 - as nft lists it
