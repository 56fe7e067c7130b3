"""What this kernel can do that more than one driver must agree on.

The firewall and the switch have to come to the same answer to one question: can the bridge
itself track connections, or must bridged packets be shown to the IP layer (`br_netfilter`, a
flag on each bridge)? Both ask here. The answer is found by trying: a throw-away table in a
network namespace that is gone when the attempt ends, so nothing of this machine's changes. It
holds for as long as the kernel runs, hence is kept for the life of the process.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

_BRIDGE_CONNTRACK = """
table bridge tv_probe {
  chain zones {
    type filter hook prerouting priority -310; policy accept;
    ct zone set meta ibrname map { "tvbr1" : 1 }
  }
  chain judge {
    type filter hook forward priority -310; policy accept;
    ct state established,related accept
  }
}
"""
# nft 1.0.6 wants a new line before each closing brace.
_PLAIN = """
table inet tv_probe {
  chain c {
    type filter hook forward priority 0; policy accept;
  }
}
"""
_TIMEOUT_S = 20.0
_answers: dict[str, str | None] = {}


async def loads(text: str) -> str | None:
    """None if this kernel takes the nft ruleset `text`, else its complaint, on one line."""
    if text in _answers:
        return _answers[text]
    for tool in ("nft", "unshare"):
        if shutil.which(tool) is None:
            return f"the command {tool} is not installed"
    process = await asyncio.create_subprocess_exec(
        "unshare",
        "--net",
        "nft",
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await asyncio.wait_for(process.communicate(text.encode()), _TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"nft did not end within {_TIMEOUT_S:.0f} s"
    lines = complaint.decode(errors="replace").strip().splitlines() or [f"rc {process.returncode}"]
    _answers[text] = None if process.returncode == 0 else lines[0]
    return _answers[text]


async def nftables_works() -> str | None:
    """None if nft rules can be made on this machine at all, else why not."""
    return await loads(_PLAIN)


async def native_bridge_conntrack() -> bool:
    """Whether nftables' bridge family tracks connections by itself on this kernel.

    Where it does not, every bridge with guests needs `nf_call_iptables` and `nf_call_ip6tables`.
    """
    return await loads(_BRIDGE_CONNTRACK) is None


def br_netfilter_loaded() -> bool:
    """Whether bridged packets can be shown to the IP layer's rules (module `br_netfilter`)."""
    return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
