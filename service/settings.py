"""Every knob of Domicile, as one frozen tree: `domicile.toml`, then `DOMICILE_SECTION__KEY` from the environment.

Rules kept here: an unknown key stops the start and names the nearest known one; nothing is read at import; no other
module reads the environment (besides `residency/silence.py`, which only clears it). Secrets stand in files, never here:
passwords and keys are named by `..._file`.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from service.errors import SettingsError

MEBIBYTE = 1024 * 1024


class Here(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where this machine stands and who controls it; `domicile init` writes it."""

    zone: str = "DE"
    """Zone of this machine; without a fleet file it is the one Site."""
    operator: str = "DE"
    """Zone in which the operator is established."""
    default_ceiling: tuple[str, ...] = ("EEA",)
    """Zones that a new tenant's data may be processed in, until `accounts tenant --ceiling` says otherwise."""


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP face."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    public_url: str = ""
    """Address that people reach it by; citations link there. Empty: http://host:port."""
    ledger_name: str = ""
    """Name that the Ledger signs under, before `/ledger/<epoch>`. Empty: `public_url` without its scheme."""
    secure_cookies: bool = False
    """Whether portal cookies demand HTTPS; set it behind TLS."""


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where ids, Tags, wrapped keys and the Ledger lie."""

    url: str = ""
    """SQLAlchemy URL without a password; empty: domicile.sqlite in the home."""
    password_file: str = ""
    """File with the database password, for PostgreSQL."""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rules are in force."""

    policies: str = ""
    """Folder of policies; empty: <home>/policies if it exists, else the shipped ones."""
    fleet: str = ""
    """Fleet file; empty: <home>/fleet.toml if it exists, else one Site named after `here.zone`."""
    admin_tenant: str = "default"
    """Tenant whose admins may change the rules, for all tenants of this installation."""
    probe_ttl_s: float = 3600.0
    """Seconds that a good probe of a Site stays good."""
    probe_every_s: float = 600.0
    """Seconds between probes."""


class Ingestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How Documents come in."""

    max_bytes: int = 100 * MEBIBYTE
    """Largest original, in bytes."""
    upload_hours: int = 24
    """Hours after its last bytes until an unfinished upload is removed."""
    workers: int = 2
    """Documents worked on at once by `serve`; 0 leaves the work to `domicile work` processes."""
    passage_words: int = 250
    """Longest Passage, in words, its heading included."""


class Models(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model embeds."""

    threads: int = 0
    """Threads of the embedder on a CPU; 0: one per core."""
    device: str = "auto"
    """`auto` takes CUDA where there is one, else ONNX Runtime on the CPU; `cpu`, `cuda` or `torch-cpu` insist."""
    precision: Literal["fp32", "int8"] = "fp32"
    """Arithmetic of the embedder on a CPU; `int8` is about twice as fast, and its vectors are another model's."""


class Answers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How questions are answered."""

    deadline_s: float = 10.0
    """Seconds that all shards together have for one question."""
    threshold: float = 0.0
    """Support below which a question is answered by an abstention; 0: as calibrated, or as shipped."""
    sentences: int = 3
    """Most quotes in an extractive Answer."""
    passages: int = 5
    """Passages that an Answer is made from."""
    sealed_passages: int = 100_000
    """Passages with sealed vectors that a process holds open for searching; more in one search are refused."""


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a key may ask for."""

    per_minute: int = 6000
    """Calls of the API that one key may make in a minute, counted by each process; 0: no limit."""
    question_chars: int = 8000
    """Longest question, in characters; a longer one is refused."""
    question_s: float = 60.0
    """Seconds after which a search or an answer is given up."""
    replies_h: float = 24.0
    """Hours that a reply is kept for a repeated `Idempotency-Key`."""


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long old keys are kept."""

    horizon_days: float = 30.0
    """Days after which a retired KEK version is destroyed, and within which an erasure reaches backups too."""


class Egress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tripwire on connections that leave the process."""

    refuse: bool = True
    """Whether a connection to an address outside the Fleet is refused, or only counted."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole tree; `home` is given, everything else has a sane default."""

    home: str = ".domicile"
    here: Here = Here()
    server: Server = Server()
    database: DatabaseSettings = DatabaseSettings()
    rules: Rules = Rules()
    ingestion: Ingestion = Ingestion()
    models: Models = Models()
    answers: Answers = Answers()
    limits: LimitSettings = LimitSettings()
    keys: KeySettings = KeySettings()
    egress: Egress = Egress()

    @property
    def path(self) -> Path:
        """The home as an absolute path."""
        return Path(self.home).expanduser().absolute()

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL with the password from its file."""
        if not self.database.url:
            return f"sqlite:///{self.path / 'domicile.sqlite'}"
        if not self.database.password_file:
            return self.database.url
        from sqlalchemy.engine import make_url

        password = Path(self.database.password_file).read_text(encoding="utf-8").strip()
        return make_url(self.database.url).set(password=password).render_as_string(hide_password=False)

    @property
    def public_url(self) -> str:
        """Address that links in citations begin with; never taken from a Host header."""
        return (self.server.public_url or f"http://{self.server.host}:{self.server.port}").rstrip("/")

    @property
    def ledger_name(self) -> str:
        """Name that the Ledger signs under, without its epoch."""
        return self.server.ledger_name or self.public_url.partition("://")[2]


def load(home: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read `<home>/domicile.toml` if it is there, then the environment.

    Raises `SettingsError` naming the key, and the nearest known one for an unknown key.
    """
    env = os.environ if environ is None else environ
    where = Path(home or env.get("DOMICILE_HOME") or ".domicile").expanduser()
    file = where / "domicile.toml"
    tree: dict[str, Any] = {}
    if file.is_file():
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file.name} is no TOML: {error}", hint="mend the line it names") from error
    tree["home"] = str(where)
    for name, value in env.items():
        if name.startswith("DOMICILE_") and "__" in name:
            section, _, key = name.removeprefix("DOMICILE_").lower().partition("__")
            tree.setdefault(section, {})[key] = value
    return parse(tree)


def parse(tree: dict[str, Any]) -> Settings:
    """Turn a plain tree into Settings; strings become numbers where the field is one: the environment has only text."""
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}", hint=_nearest(str(error), tree)) from error


def _nearest(message: str, tree: dict[str, Any]) -> str:
    if "unknown field" not in message:
        return "see docs/settings.md"
    unknown = message.split("`")[1]
    known = {field.name for field in msgspec.structs.fields(Settings)}
    for section in tree.values():
        if isinstance(section, dict) and unknown in section:
            known = set()
            for field in msgspec.structs.fields(Settings):
                if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                    known |= {inner.name for inner in msgspec.structs.fields(field.type)}
    near = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"


def describe() -> list[tuple[str, Any]]:
    """List every setting as (section.key, default), for the docs and `domicile.example.toml`."""
    rows = []
    for section in msgspec.structs.fields(Settings):
        if not (isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)):
            continue
        rows += [(f"{section.name}.{field.name}", field.default) for field in msgspec.structs.fields(section.type)]
    return rows
