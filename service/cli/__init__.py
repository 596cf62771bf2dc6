"""The command line: one verb per job, heavy imports only inside the verb, so that `--help` is quick.

Results go to stdout (`--json` for programs), everything for people to stderr. Exit codes: 0 done, 1 failed, 2 usage,
3 refused by policy, 4 partly done.
"""

from residency.silence import silence

silence()  # before anything else is imported: some libraries decide at import whether they call home

import sys  # noqa: E402

import rich_click as click  # noqa: E402
from click.exceptions import Abort  # noqa: E402

from residency.errors import DomicileError  # noqa: E402

VERBS = {
    "init": ("service.cli.run", "Set up a home: where this machine stands, keys, database, policies."),
    "serve": ("service.cli.run", "Serve the API and the portal."),
    "work": ("service.cli.run", "Work on waiting documents, without serving."),
    "migrate": ("service.cli.run", "Bring the database up to this version."),
    "doctor": ("service.cli.doctor", "Say what is wrong here and what to do."),
    "ingest": ("service.cli.ingesting", "Take files, folders and stdin in."),
    "watch": ("service.cli.ingesting", "Take in what is new or changed in a folder, as it comes."),
    "search": ("service.cli.data", "Find passages."),
    "ask": ("service.cli.data", "Ask a question."),
    "eval": ("service.cli.evaluation", "Judge search and answers by a file of questions."),
    "documents": ("service.cli.working", "List documents; retry, pause, resume and cancel them."),
    "collections": ("service.cli.collections", "List and make collections, with the form of their vectors and words."),
    "review": ("service.cli.reviews", "List, show and decide Tags in dispute."),
    "retag": ("service.cli.reviews", "Give a live document a narrower Tag."),
    "move": ("service.cli.sites", "Take a document to another Site."),
    "erase": ("service.cli.erasing", "Forget a document, a collection or everything, with certificates."),
    "hold": ("service.cli.erasing", "Keep documents from being erased: place, list, lift."),
    "retention": ("service.cli.erasing", "See what the rules of retention no longer keep."),
    "backup": ("service.cli.backup", "Write what lies in a zone to one signed file."),
    "restore": ("service.cli.backup", "Bring a backup back."),
    "report": ("service.cli.evidence", "Make a report from the ledger."),
    "receipt": ("service.cli.evidence", "Save a receipt for checking it elsewhere."),
    "verify": ("service.cli.evidence", "Check receipts, proofs, reports and certificates offline."),
    "ledger": ("service.cli.ledger", "Save checkpoints and proofs; check every row; name witnesses."),
    "witness": ("service.cli.ledger", "Watch a ledger from another machine, and cosign."),
    "violations": ("service.cli.violations", "List and answer for what was found where it may not be."),
    "reconcile": ("service.cli.violations", "Compare a Qdrant server's audit log with the receipts."),
    "policy": ("service.cli.policy", "Check, try, explain and compare the rules."),
    "sites": ("service.cli.sites", "List, probe and certify Sites; look for misplaced data."),
    "keys": ("service.cli.keys", "List, rotate and rewrap sealing keys."),
    "accounts": ("service.cli.accounts", "Make tenants and API keys."),
}


class Verbs(click.RichGroup):
    """Loads the module of a verb when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List verbs in the order of a first day."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give the verb's command; only its one-line help while help is being written."""
        if cmd_name not in VERBS:
            return None
        module, text = VERBS[cmd_name]
        if ctx.resilient_parsing or _listing():
            return click.Command(cmd_name, help=text)
        loaded = __import__(module, fromlist=[cmd_name])
        command: click.Command = getattr(loaded, cmd_name)
        return command


def _listing() -> bool:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    return not words or words[0] not in VERBS


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="domicile", message="%(version)s")
def cli() -> None:
    """Domicile: ask your own documents without a byte of them going where it may not go, and prove it."""


def main() -> None:
    """Run the command line; errors are two lines for people: what is wrong, and what to do."""
    try:
        code = cli(standalone_mode=False)  # so called, click gives the code of an Exit instead of raising it
        if isinstance(code, int):
            sys.exit(code)
    except Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DomicileError as error:
        click.echo(f"Error: {error}", err=True)
        if error.hint:
            click.echo(f"  Next: {error.hint}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
