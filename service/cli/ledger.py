"""`domicile ledger|witness`: checkpoints and proofs as files, the whole ledger read again, and a memory elsewhere."""

import asyncio
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.progress import Progress

from residency import notes, tlog
from residency.errors import LedgerError
from service.cli.common import home_option, in_house, json_option, people, run, show
from service.house import House
from service.settings import Settings

FILE = click.Path(exists=True, dir_okay=False)

file_option = click.option(
    "--out", type=click.Path(dir_okay=False), default=None, help="File; default: standard output."
)


@click.group()
def ledger() -> None:
    """Checkpoints, proofs, witnesses, and a check of every row."""


@ledger.command()
@home_option
@file_option
def checkpoint(settings: Settings, out: str | None) -> None:
    """Save the newest signed checkpoint, with its cosignatures."""

    async def story(house: House) -> str:
        return await house.database.run(house.ledger.checkpoint)

    _give(in_house(settings, story, index=False), out)


@ledger.command()
@home_option
@click.argument("old", type=int)
@click.argument("new", type=int, required=False)
@file_option
def consistency(settings: Settings, old: int, new: int | None, out: str | None) -> None:
    """Save the hashes that show that the ledger of NEW entries (default: all) continues that of OLD."""

    async def story(house: House) -> dict[str, Any]:
        size = new if new is not None else await house.database.run(house.ledger.sequence)
        hashes = await house.database.run(house.ledger.consistency, old, size)
        return {"old": old, "new": size, "hashes": hashes}

    import msgspec

    found = in_house(settings, story, index=False)
    _give(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n", out)


@ledger.command(name="witness")
@home_option
@click.argument("vkey")
def name_witness(settings: Settings, vkey: str) -> None:
    """Name a witness by its public key, so that its cosignatures are taken and shown."""
    key = notes.Verifier.parse(vkey.strip())
    if key.kind != notes.WITNESS:
        raise LedgerError("that is a log's key, not a witness's", hint="ask for what `domicile witness --key` prints")
    file = settings.path / "witnesses.txt"
    known = file.read_text(encoding="utf-8").split() if file.is_file() else []
    if key.vkey not in known:
        file.write_text("\n".join([*known, key.vkey]) + "\n", encoding="utf-8")
    people.print(f"{key.name} is a witness of this ledger ({len({*known, key.vkey})} in all)")


@ledger.command()
@home_option
@click.argument("file", type=FILE)
def cosign(settings: Settings, file: str) -> None:
    """Take a witness's cosignature from FILE, the checkpoint that it signed."""
    note = Path(file).read_text(encoding="utf-8")

    async def story(house: House) -> tuple[int, list[str]]:
        return await house.database.run(house.ledger.cosign, note)

    size, names = in_house(settings, story, index=False)
    people.print(f"cosigned at {size} entries by {', '.join(names)}")


@ledger.command()
@home_option
@json_option
def check(settings: Settings, as_json: bool) -> None:
    """Read every row again: bodies, signatures, numbers, hashes, checkpoints. Exit code 1 when something does not hold.

    Needs no other process to stop; what is written meanwhile may show as a fault of the ends, so check again then.
    """
    from service.home import inspection

    with Progress(console=people, transient=True) as bar:
        task = bar.add_task("entries", total=None)
        faults = list(inspection(settings, lambda done, whole: bar.update(task, completed=done, total=whole)))
    if as_json:
        show({"faults": [{"table": each.table, "row": each.row, "text": each.text} for each in faults]})
    else:
        for each in faults:
            click.echo(f"FALSE {each.table} {each.row}: {each.text}")
        click.echo(f"{len(faults)} faults" if faults else "Every row holds: leaves, numbers, hashes, checkpoints.")
    raise Exit(1 if faults else 0)


@ledger.command()
@home_option
@click.option("--begin", is_flag=True, help="Go on under a new name, after a restore or a wrong clock.")
def epoch(settings: Settings, begin: bool) -> None:
    """Show the ledger's epoch, or begin a new one.

    A database that was set back contradicts what was signed; the old name may then never be signed under again.
    Stop the service first, hand the new public key line to everybody who checks, and say why.
    """
    from service.home import begin_epoch, origin_of

    if begin:
        click.echo(f"The ledger goes on as {begin_epoch(settings)}.")
        people.print("Tell everybody who checks: they see a new log, and keep what they hold of the old one.")
    else:
        click.echo(origin_of(settings))


def _give(text: str, out: str | None) -> None:
    if out is None:
        click.echo(text, nl=False)
    else:
        Path(out).write_text(text, encoding="utf-8")
        people.print(out)


# --- the witness ----------------------------------------------------------------------------------------------------


@click.command(name="witness")
@click.argument("url", required=False)
@click.option("--folder", default=".domicile-witness", show_default=True, help="Where its key and memory lie.")
@click.option("--name", default="witness", show_default=True, help="The name it signs under, such as dpo.example.")
@click.option("--trust", type=FILE, help="File with the log's public key.")
@click.option("--api-key", "key_file", type=FILE, help="File with an API key.")
@click.option("--trust-root", type=FILE, help="The log's certificate authority, PEM.")
@click.option("--checkpoint", type=FILE, help="Take the checkpoint from this file.")
@click.option("--consistency", type=FILE, help="Take the proof from this file.")
@click.option("--out", type=click.Path(dir_okay=False), help="Save the cosigned checkpoint here.")
@click.option("--key", "show_key", is_flag=True, help="Print the witness's public key and end.")
@click.option("--size", "show_size", is_flag=True, help="Print the size last seen and end.")
def witness(
    url: str | None,
    folder: str,
    name: str,
    trust: str | None,
    key_file: str | None,
    trust_root: str | None,
    checkpoint: str | None,
    consistency: str | None,
    out: str | None,
    show_key: bool,
    show_size: bool,
) -> None:
    """Check that a ledger only grew since the last look, cosign its checkpoint, and remember.

    For a machine that is not the operator's. With URL it fetches checkpoint and proof and hands the cosignature in
    (API key with the scope report); without, it takes files, for a machine without a network.
    """
    from residency.witness import Witness

    made = Witness(Path(folder), name)
    if show_key:
        click.echo(made.vkey)
        return
    log = _log(trust)
    if show_size:
        click.echo(made.seen(log.name).size)
        return
    if url:
        key = Path(key_file).read_text(encoding="utf-8").strip() if key_file else ""
        note = run(_fetched(made, log, url, key, trust_root))
    elif checkpoint:
        old = made.seen(log.name).size
        note = made.cosign(Path(checkpoint).read_text(encoding="utf-8"), log, old, _proof(consistency, old))
    else:
        raise click.UsageError("give the ledger's URL, or --checkpoint FILE")
    if out:
        Path(out).write_text(note, encoding="utf-8")
    elif not url:
        click.echo(note, nl=False)
    people.print(f"{log.name}: {made.seen(log.name).size} entries seen, nothing before was changed; cosigned as {name}")


async def _fetched(made: Any, log: notes.Verifier, url: str, key: str, trust_root: str | None) -> str:
    from service.outfitting import ledger_line

    async with ledger_line(url, key=key, trust_root=Path(trust_root) if trust_root else None) as line:
        old = made.seen(log.name).size
        note = await line.checkpoint()
        size = tlog.Checkpoint.parse(notes.split(note)[0]).size
        hashes = await line.consistency(old, size) if 0 < old < size else []
        cosigned: str = await asyncio.to_thread(made.cosign, note, log, old, hashes)
        await line.cosign(cosigned)
        return cosigned


def _log(trust: str | None) -> notes.Verifier:
    if trust is None:
        raise click.UsageError("give --trust FILE with the log's public key")
    text = Path(trust).read_text(encoding="utf-8")
    found = notes.Trust.parse(text).logs if "quorum" in text else (notes.Verifier.parse(text.strip()),)
    if len(found) != 1:
        raise LedgerError("the trust file names not exactly one log", hint="keep one file for each log")
    return found[0]


def _proof(path: str | None, old: int) -> list[bytes]:
    import msgspec

    if path is None:
        return []
    try:
        found = msgspec.json.decode(Path(path).read_bytes())
        if found["old"] != old:
            raise LedgerError(f"the proof begins at {found['old']} entries, {old} were seen", hint="ask for that one")
        return [tlog.decode(text) for text in found["hashes"]]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise LedgerError("that file is no consistency proof", hint="domicile ledger consistency OLD") from error
