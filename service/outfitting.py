"""Outfitting: the bodies of the five ports, opened as the Fleet names them, and the tripwire that knows where they are.

Beside `bootstrap.py` this is the one file that may import `residency.outlets`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from residency.egress import Tripwire
from residency.errors import KeyringError, ModelError, SiteError
from residency.fleet import Fleet, Holding, Site
from residency.ports import Embedder, Generator, KeyProvider, Shard, Vault
from service.home import fleet_file
from service.settings import Settings

if TYPE_CHECKING:
    from residency.outlets.ledger_line import LedgerLine
    from residency.outlets.lines import Line
    from residency.outlets.shards.remote import RemoteShard

if TYPE_CHECKING:  # both load onnxruntime or torch's neighbours; only the house needs them
    from residency.outlets.embedders.body import RunnerEmbedder
    from residency.outlets.ledger_line import LedgerLine
    from residency.outlets.models import VerifiedModel

DIMENSION = 384
"""Width of the bundled model's vectors, until a fleet names another model."""
PATIENCE = 2 / 3
"""Share of a question's time that a generator has: the rest is for searching, and for quotes should it not come."""


def bundled_digest() -> str:
    """Check the bundled model's files and give their digest. Raises `ModelError`."""
    from residency.outlets import models

    return models.bundled().digest


class Outlets:
    """Bodies of the five ports by Site id."""

    def __init__(self) -> None:
        self.shards: dict[str, Shard] = {}
        self.embedders: dict[str, Embedder] = {}
        self.generators: dict[str, Generator] = {}
        self.keys: dict[str, KeyProvider] = {}
        self.vaults: dict[str, Vault] = {}
        self.lines: dict[tuple[str, str], Line] = {}
        """Their https addresses, by Site and kind."""


async def open_outlets(
    settings: Settings,
    fleet: Fleet,
    stack: AsyncExitStack,
    *,
    index: bool,
    given: Mapping[str, Embedder] | None,
    lost: Callable[[str, str], None],
) -> Outlets:
    """Open what the Fleet names; `index` also shards, embedders, generators; `lost` hears of a death."""
    from residency.outlets.vaults.folder import FolderVault

    outlets = Outlets()
    for provider in _providers(settings, fleet):
        outlets.keys[provider.site] = provider
        stack.push_async_callback(provider.aclose)
    for site in fleet.sites.values():
        folder = settings.path / "sites" / site.id
        if scheme(site, "vault") == "folder":
            outlets.vaults[site.id] = FolderVault(folder / "vault", site=site.id)
    if not index:
        return outlets
    from residency.outlets.lines import lines

    base = fleet_file(settings).parent
    outlets.lines |= lines(fleet, base)
    outlets.embedders |= given if given is not None else await asyncio.to_thread(_embedders, settings, fleet)
    for embedder in outlets.embedders.values():
        stack.push_async_callback(embedder.aclose)
    dimension = next((each.dimension for each in outlets.embedders.values()), DIMENSION)
    for site in fleet.sites.values():
        line = outlets.lines.get((site.id, "shard"))
        if (shard := await _shard(settings, site, dimension, line, lost)) is not None:
            outlets.shards[site.id] = shard
            stack.push_async_callback(shard.aclose)
        holding = site.holding("generator")
        if holding is not None and holding.scheme in {"http", "https"}:
            from residency.outlets.generators.openai_like import OpenAILikeGenerator

            line = outlets.lines.get((site.id, "generator"))
            generator = OpenAILikeGenerator(
                site.id,
                holding.url,
                str(holding.settings.get("model", "default")),
                _secret(base, holding.settings),
                line.context if line else None,
                within=settings.limits.question_s * PATIENCE,
            )
            outlets.generators[site.id] = generator
            stack.push_async_callback(generator.aclose)
    return outlets


def _providers(settings: Settings, fleet: Fleet) -> Iterator[KeyProvider]:
    """Make the key provider of each Site; one that does not open stops its own Site alone."""
    from residency.outlets.keys.late import LateKeys
    from residency.outlets.lines import lines

    remote = any(scheme(site, "keys") == "https" for site in fleet.sites.values())
    known = lines(fleet, fleet_file(settings).parent) if remote else {}
    for site in fleet.holding("keys"):
        line = known.get((site.id, "keys"))
        yield LateKeys(site.id, partial(_provider, settings, site, line))


def _provider(settings: Settings, site: Site, line: "Line | None") -> KeyProvider:
    holding = site.holding("keys")
    options = holding.settings if holding else {}
    base = fleet_file(settings).parent

    def named(option: str) -> Path | None:
        return base / str(options[option]) if option in options else None

    def demanded(option: str) -> Path:
        if (path := named(option)) is None:
            raise KeyringError(f"the keys of {site.id} have no {option}", hint="name it in the fleet file")
        return path

    try:
        match scheme(site, "keys"):
            case "pkcs11":
                from residency.outlets.keys.pkcs11 import Pkcs11Keys

                token = str(options.get("token", ""))
                return Pkcs11Keys(site=site.id, module=demanded("module"), token=token, pin=demanded("pin_file"))
            case "https" | "http":
                from residency.outlets.keys.bao import BaoKeys

                return BaoKeys(
                    site=site.id,
                    url=holding.url if holding else "",
                    token=demanded("token_file"),
                    operator=named("operator_token_file"),
                    mount=str(options.get("mount", "transit")),
                    namespace=str(options.get("namespace", "")),
                    context=line.context if line else None,
                )
    except ImportError as error:
        raise KeyringError(
            f"the library for the keys of {site.id} is not installed", hint="pip install 'domicile[pkcs11,bao]'"
        ) from error
    from residency.outlets.keys.file import FileKeys

    folder = settings.path / "keys" / site.id
    return FileKeys(folder, site=site.id, root=named("root_file"), passphrase=named("passphrase_file"))


async def _shard(
    settings: Settings, site: Site, dimension: int, line: "Line | None", lost: Callable[[str, str], None]
) -> Shard | None:
    holding = site.holding("shard")
    if holding is None:
        return None
    if holding.scheme == "edge":
        from residency.outlets.shards.edge import EdgeShard

        folder = settings.path / "sites" / site.id / "shard"
        shard = EdgeShard(site.id, folder, dimension=dimension, on_closed=lost)
        await shard.start()
        return shard
    # its first probe makes what is missing there; one that hangs holds nobody up, and closes
    return _remote(settings, site, holding, line, dimension=dimension)


def _remote(
    settings: Settings,
    site: Site,
    holding: Holding,
    line: "Line | None",
    *,
    dimension: int = DIMENSION,
    only_looks: bool = False,
) -> "RemoteShard":
    from residency.outlets.shards.remote import RemoteShard

    options = holding.settings
    return RemoteShard(
        site.id,
        holding.url,
        api_key=_secret(fleet_file(settings).parent, options),
        ssl_context=line.context if line else None,
        collection=str(options.get("collection", "domicile")),
        dimension=dimension,
        shard_key=str(options["shard_key"]) if "shard_key" in options else None,
        peers=[str(uri) for uri in options.get("peers", ())],
        snapshots=str(options.get("snapshots", "")),
        only_looks=only_looks,
    )


def _embedders(settings: Settings, fleet: Fleet) -> dict[str, Embedder]:
    """Open each model once; Sites of this machine that hold the same model share it, each under its own Routes."""
    from residency.outlets import models
    from residency.outlets.embedders.body import RunnerEmbedder

    opened: dict[str, Embedder] = {}
    by_model: dict[str, RunnerEmbedder] = {}
    for site in fleet.holding("embedder"):
        holding = site.holding("embedder")
        if holding is None:
            continue
        if holding.scheme == "bundled":
            model = models.bundled()
        elif holding.scheme == "path":
            model = models.verify(Path(holding.url.removeprefix("path:")), str(holding.settings.get("digest", "")))
        else:
            raise SiteError(
                f"embedder url {holding.url!r} is of no known kind", site=site.id, hint="use bundled: or path:/folder"
            )
        if model.digest not in by_model:
            by_model[model.digest] = _open_model(settings, model, site.id)
        opened[site.id] = by_model[model.digest].at(site.id)
    return opened


def _open_model(settings: Settings, model: "VerifiedModel", site: str) -> "RunnerEmbedder":
    device, precision = settings.models.device, settings.models.precision
    if device in {"cuda", "torch-cpu"} or (device == "auto" and Path("/dev/nvidia0").exists()):
        from residency.outlets.embedders.torch_embedder import TorchEmbedder

        if precision != "fp32":
            raise ModelError(
                "8 bits are for ONNX Runtime on a CPU", hint='set models.device = "cpu", or precision = "fp32"'
            )
        return TorchEmbedder(model, site=site, device={"torch-cpu": "cpu", "cuda": "cuda"}.get(device, "auto"))
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder
    from residency.outlets.embedders.onnx_export import export

    name = model.digest.removeprefix("sha256:")[:16] + ("" if precision == "fp32" else f"-{precision}")
    path = export(model, settings.path / "models" / name, precision)
    return OnnxEmbedder(model, path, site=site, threads=settings.models.threads, precision=precision)


def scheme(site: Site, kind: str) -> str:
    """Give the scheme of what a Site holds of this kind; empty when it holds none."""
    holding = site.holding(kind)
    return holding.scheme if holding else ""


def _secret(base: Path, options: Mapping[str, object]) -> str:
    """Read the `key_file` of a holding; its path counts from the fleet file's folder."""
    name = str(options.get("key_file", ""))
    return (base / name).read_text(encoding="utf-8").strip() if name else ""


@asynccontextmanager
async def ledger_line(url: str, *, key: str, trust_root: Path | None) -> AsyncIterator["LedgerLine"]:
    """Open a witness's line to a log, and refuse this process every other destination."""
    from residency.outlets.connect import destination, trust
    from residency.outlets.ledger_line import LedgerLine

    guard = Tripwire(strict=True)
    guard.allow(*destination(url))
    guard.install()
    line = LedgerLine(url, key=key, ssl_context=trust(trust_root) if url.startswith("https") else None)
    try:
        yield line
    finally:
        await line.aclose()
        guard.uninstall()


def destinations(settings: Settings, fleet: Fleet) -> list[tuple[str, int]]:
    """List host and port of everything that is reached over a network: the Fleet's addresses and the database."""
    from residency.outlets.connect import destination

    found = [
        destination(holding.url)
        for site in fleet.sites.values()
        for holding in site.holds
        if holding.scheme in {"http", "https"}
    ]
    if settings.database.url:
        from sqlalchemy.engine import make_url

        database = make_url(settings.database.url)
        if database.host:  # psycopg looks its name up through Python; what libpq connects to is not seen
            found.append((database.host, database.port or 5432))
    return found


def tripwire(settings: Settings, fleet: Fleet) -> Tripwire:
    """Make the tripwire that knows the addresses of Fleet and database alone; who owns the process installs it."""
    from service.metering import UNEXPECTED

    made = Tripwire(strict=settings.egress.refuse, told=UNEXPECTED.inc)
    for host, port in destinations(settings, fleet):
        made.allow(host, port)
    return made
