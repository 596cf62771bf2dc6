"""`domicile backup` and `restore`: what a Zone's Sites hold, as one signed file, and back again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from residency.decision import Refusal
from residency.notes import Verifier
from service.cli.common import home_option, in_house, json_option, people, show, show_refusal
from service.home import public_keys
from service.house import House
from service.settings import Settings

UNFINISHED = 4
"""Exit code when something was left out or does not open."""


@click.command()
@home_option
@json_option
@click.option("--zone", required=True, help="Whose sites, such as DE or EU.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option("--without-index", is_flag=True, help="Leave points out, so that `domicile serve` may go on meanwhile.")
def backup(settings: Settings, zone: str, out: Path, without_index: bool, as_json: bool) -> None:
    """Write what lies in a zone to one file: ciphertext and wrapped keys, no key that opens them."""
    from ingestion.archive import ArchiveWriter

    async def story(house: House) -> dict[str, Any]:
        with _progress("writing", quiet=as_json) as tick:
            return await house.backup.write(zone, ArchiveWriter(out, progress=tick))

    made = in_house(settings, story, index=not without_index)
    if as_json:
        show(made)
    else:
        people.print(
            f"{out.name}: {made['documents']} document versions of {len(made['tenants'])} tenants at "
            f"{', '.join(made['sites'])}, {made['bytes'] / 1e6:.1f} MB, {made['digest']}"
        )
        if made["left_out"]:
            people.print(f"{made['left_out']} left out: the policy refuses to read them, or they were just erased")
    if made["left_out"]:
        raise Exit(UNFINISHED)


@click.command()
@home_option
@json_option
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--site", default="", help="Put it at this site instead of the one it came from.")
@click.option("--key", default="", help="Public key (vkey) of the ledger that signed it; default: this home's own.")
def restore(settings: Settings, file: Path, site: str, key: str, as_json: bool) -> None:
    """Bring a backup back, once every byte of it was checked and its tags permit the site."""
    from ingestion.archive import Archive

    trusted = [Verifier.parse(key)] if key else [Verifier.parse(each["key"]) for each in public_keys(settings)]

    async def story(house: House) -> dict[str, Any] | Refusal:
        archive = Archive(file)
        try:
            with _progress("checking", quiet=as_json) as tick:
                return await house.restore.read(archive, trusted, site=site, progress=tick)
        finally:
            archive.close()

    done = in_house(settings, story)
    if isinstance(done, Refusal):
        show_refusal(done, "", as_json=as_json)
        return
    if as_json:
        show(done)
    else:
        people.print(
            f"{done['restored']} restored, {done['indexing']} to be indexed anew, {done['there']} were there, "
            f"{done['erased_again']} stay erased, {done['unopened']} do not open: their key version is gone"
        )
    if done["unopened"]:
        raise Exit(UNFINISHED)


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn(what), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=people, transient=True, disable=quiet or not people.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)
