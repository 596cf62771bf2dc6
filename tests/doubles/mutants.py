"""Mutants of a policy file: each one small slip of the pen, that the worked cases or the invariants must notice."""

import dataclasses
from collections.abc import Iterator

from cedarpy import pst

from residency.policy import text_of

WEAKER = {"EU": "EEA", "EEA": "GDPR-ADEQUATE", "DE": "EU", "GDPR-ADEQUATE": "EEA"}
SHIFTED = {"greater_eq": "greater", "greater": "greater_eq", "less": "less_eq", "less_eq": "less"}
GROUPS = {"governed": "processing", "processing": "plaintext", "plaintext": "transfer"}


def mutants(tree: pst.PolicySet) -> Iterator[tuple[str, str]]:
    """Give for each slip what was done, and the text of the whole file with it."""
    rules = list(tree.static_policies.values())
    for number, rule in enumerate(rules):
        name = rule.annotations["id"]
        kept = [text_of(other) for at, other in enumerate(rules) if at != number]
        yield f"{name}: dropped", "\n".join(kept)
        for what, changed in _slips(rule):
            yield f"{name}: {what}", "\n".join([*kept, text_of(changed)])


def _slips(rule: pst.Template) -> Iterator[tuple[str, pst.Template]]:
    for number, clause in enumerate(rule.clauses):
        for what, expression in _changed(clause.expr):
            other = dataclasses.replace(clause, expr=expression)
            yield what, dataclasses.replace(rule, clauses=(*rule.clauses[:number], other, *rule.clauses[number + 1 :]))
        yield (
            f"condition {number} gone",
            dataclasses.replace(rule, clauses=(*rule.clauses[:number], *rule.clauses[number + 1 :])),
        )
        yield (
            f"condition {number} turned",
            dataclasses.replace(
                rule,
                clauses=(
                    *rule.clauses[:number],
                    dataclasses.replace(clause, expr=pst.UnaryOp("not", clause.expr)),
                    *rule.clauses[number + 1 :],
                ),
            ),
        )
    if isinstance(rule.action, pst.ActionIn):
        (uid,) = rule.action.entities
        less = dataclasses.replace(uid, id=GROUPS[uid.id])
        narrower = pst.ActionEq(less) if less.id == "transfer" else pst.ActionIn((less,))
        yield f"{uid.id} became {less.id}", dataclasses.replace(rule, action=narrower)


def _changed(expression: pst.Expr) -> Iterator[tuple[str, pst.Expr]]:
    match expression:
        case pst.BinaryOp("and" | "or" as op, left, right):
            yield f"left of {op} alone", left
            yield f"right of {op} alone", right
            yield f"{op} the other way", dataclasses.replace(expression, op="or" if op == "and" else "and")
            for what, inner in _changed(left):
                yield what, dataclasses.replace(expression, left=inner)
            for what, inner in _changed(right):
                yield what, dataclasses.replace(expression, right=inner)
        case pst.BinaryOp(op, left, right):
            if op in SHIFTED:
                yield f"{op} shifted", dataclasses.replace(expression, op=SHIFTED[op])
            for what, inner in _changed(right):
                yield what, dataclasses.replace(expression, right=inner)
        case pst.EntityLit(uid) if uid.type.basename == "Zone":
            other = WEAKER.get(uid.id, "EU")
            yield f"{uid.id} became {other}", pst.EntityLit(dataclasses.replace(uid, id=other))
        case pst.StringLit(text):
            yield f"{text} misspelt", pst.StringLit(f"{text}s")
        case _:
            return
