"""Calibration: from the support of what was found to the chance that the answer is there, and where to abstain.

Rules kept here: a map belongs to one collection, one model and one language; it holds numbers and nothing else; below
`FEWEST` pairs none is kept and the model's shipped one holds. A pair is one question asked twice of the same
collection: with its Document there (`present`), and with all Passages of it left out (`absent`). The threshold lets
`FALSE` of the absent through and always acts. How pairs are made stands in `leaving.py`.
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from residency.database import Database, metadata

FEWEST: Final = 50
"""Pairs below which the shipped map holds."""
FALSE: Final = 0.03
"""Share of questions that may be answered though their Document is out of reach: set for 3 % to keep 5 % elsewhere."""
BINS: Final = 10
"""Bins of equal count for the calibration error."""
KEPT_SECONDS: Final = 30.0
"""How long what was read is taken for true: another process may calibrate meanwhile."""
STALE: Final = 0.2
"""Share of a collection's Passages whose coming or going makes a map old."""

calibrations = sa.Table(
    "calibration",
    metadata,
    sa.Column("collection", sa.String(32), primary_key=True),
    sa.Column("language", sa.String(8), primary_key=True),
    sa.Column("model", sa.String(80), primary_key=True),
    sa.Column("slope", sa.Float, nullable=False),
    sa.Column("intercept", sa.Float, nullable=False),
    sa.Column("threshold", sa.Float, nullable=False),
    sa.Column("error", sa.Float, nullable=False),
    sa.Column("answered", sa.Float, nullable=False),
    sa.Column("falsely", sa.Float, nullable=False),
    sa.Column("pairs", sa.Integer, nullable=False),
    sa.Column("passages", sa.Integer, nullable=False),
    sa.Column("made", sa.Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What one question found with its Document there and without it: support, and the Document for the split."""

    document: str
    present: float
    absent: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic map from support to confidence, and the threshold of support below which an Answer abstains."""

    slope: float
    intercept: float
    threshold: float
    error: float = 0.0
    """Expected calibration error over ten bins of equal count, on Documents that were not fitted."""
    answered: float = 0.0
    """Share of present questions at or above the threshold, on Documents that were not fitted."""
    falsely: float = 0.0
    """The same share of absent ones."""
    pairs: int = 0
    """0: a map that ships."""
    passages: int = 0
    """Passages that the collection had."""
    made: float = 0.0
    """Seconds since 1970."""

    def confidence(self, support: float) -> float:
        """Give the chance, .01 to .99, that what has this support holds the answer."""
        return round(min(0.99, max(0.01, _chance(self.slope * support + self.intercept))), 2)


def _at(threshold: float) -> Calibration:
    """Give a map that ships: even chances lie a little below its threshold, as in every map that was fitted."""
    return Calibration(slope=13.0, intercept=-13.0 * (threshold - 0.05), threshold=threshold)


GENERAL: Final = _at(0.85)
"""For models and languages that nobody measured: there a cosine counts a quarter (`fusion.trust`)."""
SHIPPED: Final[Mapping[str, Mapping[str, Calibration]]] = {
    "sha256:04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1": {  # the bundled all-MiniLM-L6-v2
        **{language: _at(1.02) for language in ("en", "de", "fr", "es", "ro")},
        "und": _at(1.05),  # no language, so no words are weighed as among Passages of one (`fusion.narrowed`)
        "el": _at(0.85),
    },
}
"""By the digest of the model's manifest and ISO 639-1 code: one threshold for the languages that a cosine counts in,
which let 4 % of the development set's questions through with their Documents left out (docs/quality.md); `ro` and `el`
were not measured here."""


SMALL: Final = 50
"""Passages below which IDF tells rare words from common ones badly, so that whatever is found has little support."""
SMALLER: Final = 0.25
"""What the shipped threshold gives way in so small a collection."""


def shipped(model: str, language: str, passages: int) -> Calibration:
    """Give the map that ships for a model and a language, for a search among so many Passages."""
    found = SHIPPED.get(model.partition("+")[0], {}).get(language, GENERAL)  # in eight bits, the same map
    return found if passages >= SMALL else _at(found.threshold - SMALLER)


def _chance(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -500 else 0.0


def fit(pairs: Sequence[Pair], *, passages: int, now: float) -> Calibration | None:
    """Fit a map to pairs; None below `FEWEST`.

    Error and shares come from two folds split by Document: each is judged by what the other gave. The map that is kept
    is fitted to all. Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999), by Newton's method.
    """
    if len(pairs) < FEWEST:
        return None
    documents = sorted({each.document for each in pairs})
    halves = (frozenset(documents[::2]), frozenset(documents[1::2]))
    truth: list[tuple[float, float]] = []
    answered = falsely = judged = 0
    for half in halves:
        train = [each for each in pairs if each.document not in half]
        test = [each for each in pairs if each.document in half]
        if not train or not test:
            continue
        slope, intercept, threshold = _fitted(train)
        truth += [(_chance(slope * each.present + intercept), 1.0) for each in test]
        truth += [(_chance(slope * each.absent + intercept), 0.0) for each in test]
        answered += sum(each.present >= threshold for each in test)
        falsely += sum(each.absent >= threshold for each in test)
        judged += len(test)
    slope, intercept, threshold = _fitted(pairs)
    return Calibration(
        slope=round(slope, 4),
        intercept=round(intercept, 4),
        threshold=threshold,
        error=round(calibration_error(truth), 4),
        answered=round(answered / max(1, judged), 4),
        falsely=round(falsely / max(1, judged), 4),
        pairs=len(pairs),
        passages=passages,
        made=now,
    )


def _fitted(pairs: Sequence[Pair]) -> tuple[float, float, float]:
    x = np.array([each.present for each in pairs] + [each.absent for each in pairs])
    y = np.array([1.0] * len(pairs) + [0.0] * len(pairs))
    design: NDArray[np.float64] = np.stack([x, np.ones_like(x)], axis=1)
    theta = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -30, 30)))
        # a little weight decay keeps classes that part without a rest from sending the slope to infinity
        gradient = design.T @ (p - y) + 0.01 * theta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 0.01 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step
        if float(np.abs(step).max()) < 1e-8:
            break
    absent = sorted((each.absent for each in pairs), reverse=True)
    # the least support that fewer than `FALSE` of the absent reach
    let_through = int(len(absent) * FALSE)
    threshold = (math.floor(absent[let_through] * 10_000) + 1) / 10_000
    return float(theta[0]), float(theta[1]), threshold


def calibration_error(rows: Sequence[tuple[float, float]]) -> float:
    """Give the expected calibration error of (confidence, truth) over ten bins of equal count."""
    ordered = sorted(rows, key=lambda row: row[0])
    if not ordered:
        return 0.0
    bins = [ordered[len(ordered) * at // BINS : len(ordered) * (at + 1) // BINS] for at in range(BINS)]
    return sum(abs(sum(said - true for said, true in each)) for each in bins) / len(ordered)


class Calibrations:
    """Keeps maps, and gives the one that holds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: dict[str, tuple[float, dict[tuple[str, str], Calibration]]] = {}
        self._lock = threading.Lock()

    async def of(self, collection: str) -> dict[tuple[str, str], Calibration]:
        """Give a collection's maps, from memory where they were read a moment ago."""
        read = self._read.get(collection)
        fresh = read is not None and time.monotonic() - read[0] < KEPT_SECONDS
        return read[1] if read is not None and fresh else await self._database.run(self.known, collection)

    def known(self, collection: str) -> dict[tuple[str, str], Calibration]:
        """Give a collection's maps by model and language; language "" is all of them joined."""
        read = self._read.get(collection)
        if read is not None and time.monotonic() - read[0] < KEPT_SECONDS:
            return read[1]
        c = calibrations.c
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(calibrations).where(c.collection == collection)).mappings().all()
        fields = Calibration.__dataclass_fields__
        found = {(r["model"], r["language"]): Calibration(**{name: r[name] for name in fields}) for r in rows}
        with self._lock:
            if len(self._read) > 10_000:
                self._read.clear()
            self._read[collection] = time.monotonic(), found
        return found

    def keep(self, collection: str, model: str, language: str, made: Calibration) -> None:
        """Write a map down, in place of an older one."""
        c = calibrations.c
        key = {"collection": collection, "model": model, "language": language}
        with self._database.transaction() as connection:
            connection.execute(sa.delete(calibrations).where(*(c[name] == value for name, value in key.items())))
            connection.execute(sa.insert(calibrations).values(**key, **asdict(made)))
        self._read.pop(collection, None)


def choose(known: Mapping[tuple[str, str], Calibration], model: str, language: str, *, passages: int) -> Calibration:
    """Give the collection's map for the question's language, else for all of its languages, else the shipped one."""
    return known.get((model, language)) or known.get((model, "")) or shipped(model, language, passages)
