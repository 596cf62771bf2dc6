"""Facts as Cedar reads them: Zones, Sites, tenants, principals and the context of an Ask, as JSON-able data.

Rules kept here: instants are written in UTC with milliseconds and `Z`, the one form that Cedar and Python agree on; a
Tag's jurisdictions are given with every Zone above them: who is under Bavarian law is under German law too.
"""

import json
from datetime import UTC, datetime
from typing import Any

from residency.decision import Basis, Principal
from residency.fleet import Fleet, Site
from residency.tag import Tag
from residency.zones import Zones


def uid(kind: str, name: str) -> dict[str, str]:
    """Name an entity, as Cedar's requests do."""
    return {"type": f"Domicile::{kind}", "id": name}


def context(zones: Zones, tenant: str, tag: Tag, activity: str, now: datetime, basis: Basis | None) -> str:
    """Write the context of one Tag of an Ask as JSON text."""
    laws = tag.jurisdictions.union(*(zones.ancestors(code) for code in tag.jurisdictions))
    found: dict[str, Any] = {
        "tenant": _ref("Tenant", tenant),
        "tag": {
            "jurisdictions": [_ref("Zone", code) for code in laws],
            "residency": [_ref("Zone", code) for code in tag.residency],
            "personal": tag.personal,
            "categories": list(tag.categories),
            "classification": tag.classification,
        },
        "activity": activity,
        "now": _instant(now),
    }
    if basis is not None:
        found["basis"] = {
            "article": basis.article,
            "instrument": basis.instrument,
            "expires": _instant(basis.expires),
        }
    return json.dumps(found)


def zone(code: str, zones: Zones) -> dict[str, Any]:
    """Give a Zone with the Zones that directly hold it."""
    return {"uid": uid("Zone", code), "attrs": {}, "parents": [uid("Zone", up) for up in zones.parents(code)]}


def site(place: Site, fleet: Fleet, now: datetime) -> dict[str, Any]:
    """Give a Site with its facts and its health at `now`."""
    found = {
        "operator": _ref("Zone", place.operator.zone),
        "parent": _ref("Zone", place.parent.zone),
        "grade": place.grade(now),
        "bound": fleet.bound(place.id),
        "verifiedUntil": _instant(fleet.verified_until(place.id)),
    }
    parents = [uid("Zone", code) for code in place.zones_at(now)]
    return {"uid": uid("Site", place.id), "attrs": found, "parents": parents}


def tenant(name: str, ceiling: frozenset[str]) -> dict[str, Any]:
    """Give a tenant with its ceiling."""
    return {"uid": uid("Tenant", name), "attrs": {"ceiling": [_ref("Zone", code) for code in ceiling]}, "parents": []}


def principal(who: Principal) -> dict[str, Any]:
    """Give a principal with its tenant and registered activities."""
    found = {"tenant": _ref("Tenant", who.tenant), "activities": sorted(who.activities)}
    return {"uid": uid("Principal", who.id), "attrs": found, "parents": []}


def _ref(kind: str, name: str) -> dict[str, dict[str, str]]:
    return {"__entity": uid(kind, name)}


def _instant(at: datetime) -> dict[str, dict[str, str]]:
    text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
    return {"__extn": {"fn": "datetime", "arg": text}}
