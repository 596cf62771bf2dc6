"""lines: every https address of the Fleet with the TLS that it is believed by, and what that TLS can prove.

A handshake proves a Zone only where its root is that Zone's own: one that other Zones' Sites are believed by too, or
that this machine's own list holds, would answer for any place.
"""

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from residency.errors import SiteError
from residency.fleet import Fleet
from residency.outlets.connect import destination
from residency.outlets.tls import Peer, expires, handshake, keys_of, known_to_all, loaded, trust


@dataclass(frozen=True, slots=True)
class Line:
    """One address of a Site. `own`: whether its root is that of the Site's own Zone and of no other."""

    site: str
    kind: str
    url: str
    context: ssl.SSLContext
    own: bool
    shown: Path | None
    """The certificate that we show there."""

    async def meet(self) -> Peer:
        """Say who answers, after a handshake and without a byte of payload. Raises `SiteError`."""
        host, port = destination(self.url)
        if self.shown is not None:
            context_end = expires(self.shown)
            if context_end <= datetime.now(context_end.tzinfo):
                raise SiteError(
                    f"our certificate for {self.site} has expired", site=self.site, hint="`domicile sites certify`"
                )
        return await handshake(self.site, host, port, self.context)


def lines(fleet: Fleet, base: Path) -> dict[tuple[str, str], Line]:
    """Make the TLS of every https address, by Site and kind; paths of the fleet file count from its folder `base`.

    Raises `SiteError` for an address without a trust root and for files that do not load.
    """
    found: dict[tuple[str, str], Line] = {}
    zones_of: dict[str, set[str]] = {}
    held: dict[tuple[str, str], frozenset[str]] = {}
    public: dict[Path, bool] = {}
    for site in fleet.sites.values():
        for holding in site.holds:
            if holding.scheme != "https":
                continue
            how = site.trust(holding)
            if not how.trust_root:
                raise SiteError(
                    f"the {holding.kind} of {site.id} has no trust root",
                    site=site.id,
                    hint="name the PEM file of its Zone's own root as trust_root; `domicile sites certify` makes one",
                )
            root = base / how.trust_root
            roots = loaded(root)
            keys = held[site.id, holding.kind] = keys_of(roots)
            for key in keys:
                zones_of.setdefault(key, set()).add(site.zone)
            if root not in public:
                public[root] = known_to_all(roots)
            shown = base / how.certificate if how.certificate else None
            key_file = base / how.certificate_key if how.certificate_key else None
            context = trust(root, certificate=shown, key=key_file, pins=how.peer_spki)
            found[site.id, holding.kind] = Line(site.id, holding.kind, holding.url, context, not public[root], shown)
    return {
        place: line if all(len(zones_of[key]) == 1 for key in held[place]) else _shared(line)
        for place, line in found.items()
    }


def _shared(line: Line) -> Line:
    return Line(line.site, line.kind, line.url, line.context, False, line.shown)
