"""Site: one deployment we run or rent, as `fleet.toml` describes it.

Facts are fixed once read. `proven` alone comes from probes: it is no fact, no part of the Fleet's digest, and equality
does not see it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, cast

import msgspec

from residency.evidence import Evidence, best
from residency.evidence import next_change as evidence_change

_LATER: Final = (
    "trust_root", "certificate", "certificate_key", "peer_spki",
    "subprocessor_rank", "country_of_provision", "certificates", "union_assurance_level",
)  # fmt: skip
"""Facts that came after the first version: left out while empty, so that older Fleets keep their digest."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who controls a Site: legal name, Zone of establishment, and Legal Entity Identifier if known."""

    name: str
    zone: str
    lei: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """One thing a Site holds: its kind, its URL, and settings of that kind (such as `model` or `key_file`)."""

    kind: str
    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """The part of the URL before the first colon."""
        return self.url.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Trust:
    """By what a server is believed and what it is shown: paths of PEM files, as the fleet file spells them.

    `peer_spki` are SHA-256 digests (hex) of the public keys that may answer; empty: any certificate of the root.
    """

    trust_root: str = ""
    certificate: str = ""
    certificate_key: str = ""
    peer_spki: tuple[str, ...] = ()


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a third party certified of a Site: scheme (such as `ISO/IEC 27001`), id, last day."""

    scheme: str
    id: str = ""
    valid_until: date | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """One deployment we run or rent. `zones`: the country or part of one it stands in, then the schemes it is under."""

    id: str
    zones: tuple[str, ...]
    operator: Operator
    parent: Operator
    """Its ultimate parent company; the operator itself where there is none."""
    holds: tuple[Holding, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    contract: str = ""
    place: str = ""
    zone_until: Mapping[str, date] = field(default_factory=dict)
    """Last day (UTC) of a membership that ends by itself, such as a certification under `US-DPF`."""
    trust_root: str = ""
    """PEM file of its Zone's own certificate authority: nothing else is believed at its https addresses."""
    certificate: str = ""
    """PEM file of the certificate that we show there; its key may stand in the same file."""
    certificate_key: str = ""
    """PEM file of that certificate's private key."""
    peer_spki: tuple[str, ...] = ()
    """SHA-256 (hex) of each public key that may answer there; empty: any certificate of the root."""
    subprocessor_rank: int | None = None
    """Its operator's place in the chain of GDPR 28 and ITS 2024/2956: 1 is our own processor, 2 that one's, and on."""
    country_of_provision: str = ""
    """Zone from which its operator provides the service (ITS 2024/2956 B_02.02.0130)."""
    certificates: tuple[Certificate, ...] = ()
    union_assurance_level: str = ""
    proven: tuple[int, datetime] | None = field(default=None, compare=False, repr=False)
    """A grade that the last probe proved, and until when."""

    @property
    def zone(self) -> str:
        """The Zone it stands in."""
        return self.zones[0]

    def zones_at(self, now: datetime) -> tuple[str, ...]:
        """Give the Zones it lies in at `now`, without memberships that have ended."""
        day = now.astimezone(UTC).date()
        return tuple(code for code in self.zones if code not in self.zone_until or day <= self.zone_until[code])

    def grade(self, now: datetime) -> int:
        """Give the grade (0-6) of its best Evidence in force, what a probe proved included."""
        proven = self.proven[0] if self.proven and now < self.proven[1] else 0
        return max(best(self.evidence, now), proven)

    def holding(self, kind: str) -> Holding | None:
        """Give what it holds of that kind, or None."""
        return next((item for item in self.holds if item.kind == kind), None)

    def trust(self, holding: Holding) -> Trust:
        """Give by what a server of this holding is believed: its own settings, else the Site's."""
        own = holding.settings
        certificate = str(own.get("certificate", ""))
        pins = own.get("peer_spki", self.peer_spki)
        return Trust(
            str(own.get("trust_root", self.trust_root)),
            certificate or self.certificate,
            str(own.get("certificate_key", "" if certificate else self.certificate_key)),
            (pins,) if isinstance(pins, str) else tuple(pins),
        )

    def next_change(self, now: datetime) -> datetime | None:
        """Give the next instant at which its Zones or its grade may change, or None."""
        ends = [datetime.combine(day + timedelta(days=1), time(), UTC) for day in self.zone_until.values()]
        if self.proven:
            ends.append(self.proven[1])
        later = [end for end in ends if end > now]
        change = evidence_change(self.evidence, now)
        return min([*later, change] if change else later, default=None)

    def facts(self) -> dict[str, Any]:
        """Give every fact as JSON-able data, as the Fleet's digest and reports see it."""
        found = cast("dict[str, Any]", msgspec.to_builtins(self))
        del found["proven"]
        return {name: value for name, value in found.items() if value or name not in _LATER}
