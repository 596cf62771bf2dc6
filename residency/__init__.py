"""The residency engine: which data may be processed where, and the proof of what was done.

A ten-line map of the room:
    zones, evidence      places in law and how they nest; grounds for where a Site stands
    tag, decision        what binds some data; Ask, Permit, Refusal
    fleet, policy        the Sites we run and rent; the Cedar rules of `policies/`
    engine, whynot       one Ask ruled on, and the only mint of a Route; why it was refused and what would help
    cases, impact        what the rules must say; what a new set of rules would change
    route, ports         the pass that every outlet demands; the five kinds of outlet
    seal, envelope, frames, keyring, rotation, lexicon   what lies at a Site is sealed, turned and blinded
    journal, receipt, tlog, ledger, verify, report       what was touched is recorded, provable and readable
    database, errors     ids, Tags and wrapped keys, never content; everything that can go wrong
    outlets/             the corridor: every way by which data can leave the process, and nothing else

Names are imported from their modules (`from residency.engine import Engine`); this file imports nothing, so that a
module of the room can be used without loading the others.
"""
