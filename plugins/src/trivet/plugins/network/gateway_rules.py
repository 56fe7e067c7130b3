"""The nftables rules of a gateway's namespace and of the node, as text: a pure function each.

Each is a whole table, replaced in one transaction. Newlines before braces: nft 1.0 wants them.
"""

from __future__ import annotations

from collections.abc import Sequence

from trivet.plugins.network.transit import Transit


def inner() -> str:
    """Inside a gateway's namespace: what its guests may ask of it, and their way outside."""
    return """table inet gateway
delete table inet gateway
table inet gateway {
chain input {
type filter hook input priority 0; policy drop;
iifname "lo" accept
ct state established,related accept
meta l4proto ipv6-icmp accept
iifname "net0" meta l4proto icmp accept
iifname "net0" udp dport { 53, 67, 547 } accept
iifname "net0" tcp dport 53 accept
iifname "net0" ip daddr 169.254.169.254 tcp dport 80 accept
}
chain forward {
type filter hook forward priority 0; policy drop;
ct state established,related accept
ip daddr 169.254.0.0/16 drop
iifname "net0" oifname "ext0" accept
}
chain outward {
type nat hook postrouting priority 100; policy accept;
oifname "ext0" masquerade
}
}
"""


def node(prefix: str, transits: Sequence[Transit]) -> str:
    """On the node: translation of the transits, and nothing from them to the node itself."""
    table, links = f"{prefix}_nat", f'"{prefix}x*"'
    v4 = ", ".join(sorted(str(t.v4) for t in transits))
    v6 = ", ".join(sorted(str(t.v6) for t in transits))
    return f"""table inet {table}
delete table inet {table}
table inet {table} {{
chain input {{
type filter hook input priority 0; policy accept;
iifname {links} ct state established,related accept
iifname {links} meta l4proto {{ icmp, ipv6-icmp }} accept
iifname {links} drop
}}
chain forward {{
type filter hook forward priority 0; policy accept;
iifname {links} oifname {links} drop
oifname {links} ct state established,related accept
oifname {links} drop
}}
chain outward {{
type nat hook postrouting priority 100; policy accept;
ip saddr {{ {v4} }} oifname != {links} masquerade
ip6 saddr {{ {v6} }} oifname != {links} masquerade
}}
}}
"""
