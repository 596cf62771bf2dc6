"""Firewall: the operator's own walls, written from the Fleet: an nftables ruleset and a drop-in for a systemd unit.

Rules kept here: what the Fleet and the database do not need is not open; what is stopped is counted (`leaked`) and
logged; loading a ruleset again replaces it in one step. Names stand for the addresses that they had when it was
written, so it is written anew when one moves. Source: nft(8), systemd.resource-control(5).
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import InvalidRequestError

TABLE: Final = "domicile"
DNS_PORT: Final = 53


@dataclass(frozen=True, slots=True, order=True)
class Opening:
    """One destination that stays reachable over TCP; `name` is what the Fleet calls its host."""

    address: str
    port: int
    name: str

    @property
    def family(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version


def openings(destinations: Iterable[tuple[str, int]], addresses: Callable[[str], list[str]]) -> list[Opening]:
    """Give the openings of host and port pairs, sorted; loopback needs none. `addresses` looks a name up."""
    found = {Opening(each, port, host) for host, port in destinations for each in addresses(host)}
    return sorted(each for each in found if not ipaddress.ip_address(each.address).is_loopback)


def nft(open_to: Sequence[Opening], *, fleet: str, resolvers: Sequence[str] = (), account: str = "") -> str:
    """Give a ruleset for `nft -f`: everything of the namespace, or of one account where it is named.

    `fleet` is the digest that it was written from; `resolvers` are addresses that may be asked for names.
    """
    if account and not re.fullmatch(r"[a-z_0-9][a-z0-9_-]{0,31}", account):
        raise InvalidRequestError("that is no account's name", param="account", hint="write its name or number")
    name_servers = sorted({_network(each) for each in resolvers}, key=lambda each: (":" in each, each))
    rules = [
        'oifname "lo" accept',
        "ct state established,related accept",
        *[
            f"ip{'6' if family == 6 else ''} daddr . tcp dport @allowed{family} accept"
            for family in (4, 6)
            if any(each.family == family for each in open_to)
        ],
        *[
            f"ip{'6' if ':' in each else ''} daddr {each} meta l4proto {{ tcp, udp }} th dport {DNS_PORT} accept"
            for each in name_servers
        ],
        'counter name leaked log prefix "domicile leaked " drop',
    ]
    lines = [
        f"# What the Sites of fleet {fleet} need, and nothing else.",
        f"table inet {TABLE} {{}}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        *_set(4, "ipv4_addr", open_to),
        *_set(6, "ipv6_addr", open_to),
        "  counter leaked { }",
    ]
    if account:  # only this account's packets; those that belong to no socket are none of ours
        lines += ["  chain confined {", *[f"    {rule}" for rule in rules], "  }"]
        rules = [f'meta skuid "{account}" goto confined']
    policy = "accept" if account else "drop"
    lines += ["  chain out {", f"    type filter hook output priority 0; policy {policy};"]
    lines += [*[f"    {rule}" for rule in rules], "  }", "}"]
    return "\n".join(lines) + "\n"


def _word(name: str) -> str:
    """Keep what cannot end a comment."""
    return re.sub(r"[^\w.:-]", "_", name)


def _network(text: str) -> str:
    """Spell an address or a network one way; a single address without its length."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidRequestError(
            f"{text!r} is no address or network", param="resolver", hint="write 10.0.0.2 or 10.0.0.0/24"
        ) from error
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _set(family: int, kind: str, open_to: Sequence[Opening]) -> list[str]:
    listed = [each for each in open_to if each.family == family]
    if not listed:
        return []
    by_place = {(each.address, each.port): each.name for each in listed}
    elements = [f'      {place} . {port} comment "{_word(name)}",' for (place, port), name in by_place.items()]
    return [
        f"  set allowed{family} {{",
        f"    type {kind} . inet_service",
        "    elements = {",
        *elements,
        "    }",
        "  }",
    ]


def systemd(
    open_to: Sequence[Opening], *, fleet: str, resolvers: Sequence[str] = (), callers: Sequence[str] = ()
) -> str:
    """Give a drop-in for the service's unit; systemd filters by address alone, both ways, so `callers` are listed too.

    `callers` are addresses or networks from which the service is called; loopback always is.
    """
    by_address: dict[str, set[str]] = {}
    for each in open_to:
        by_address.setdefault(each.address, set()).add(each.name)
    for name, listed in (("resolver", resolvers), ("caller", callers)):
        for network in listed:
            by_address.setdefault(_network(network), set()).add(name)
    lines = [
        f"# What the Sites of fleet {fleet} need, and nothing else.",
        "[Service]",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
    ]
    for address, names in by_address.items():
        lines += [f"# {', '.join(_word(each) for each in sorted(names))}", f"IPAddressAllow={address}"]
    lines += ["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", "NoNewPrivileges=yes"]
    return "\n".join(lines) + "\n"
