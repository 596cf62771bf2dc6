"""Metering: the figures that `/metrics` gives beside the process' own.

Rules kept here: labels come from closed lists, never a tenant, a name or an id.
"""

from prometheus_client import REGISTRY, Counter

__all__ = ["REGISTRY", "UNEXPECTED"]

UNEXPECTED = Counter(
    "domicile_unexpected_connects_total", "Connections and name lookups beyond the Fleet that the tripwire saw"
)
