"""What sealing costs, as ratios to the bare primitive of the same run: `python bench/sealing.py [folder for keys]`.

One core, best of several rounds. The targets stand beside each line; nothing here fails, tests hold no times.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from residency.database import Database, metadata
from residency.envelope import PassageBody, PassageSealer
from residency.frames import open_file, seal_file
from residency.keyring import Keyring
from residency.keyrows import DekRow
from residency.keystore import Keystore
from residency.lexicon import Lexicon
from residency.outlets.keys.file import FileKeys
from residency.ports import KekRef
from residency.rotation import make, rotate
from residency.route import MINT, Action, Route
from residency.seal import NO_TAG, SEAL_LIMIT, KeyContext, OpenDek, Purpose, tenant_bytes

SITE = "bench"
ROUNDS = 7


def route(action: Action, tags: frozenset[str] = frozenset()) -> Route:
    return Route(
        MINT,
        action=action,
        site=SITE,
        tenant="northwind",
        principal="bench",
        tags=tags,
        policies=(),
        good_until=time.monotonic() + 60,
    )


def micros(call: Callable[[], object], count: int) -> float:
    """Microseconds for one of `count` repetitions, best of the rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - began) / count * 1e6)
    return best


def line(what: str, value: float, bare: float | None = None, target: str = "") -> None:
    ratio = f"{value / bare:6.2f} ×" if bare else " " * 8
    print(f"{what:<52} {value:10.2f} µs {ratio}  {target}")


def dek() -> OpenDek:
    context = KeyContext(Purpose.DOCUMENT, tenant_bytes("northwind"), "DE", os.urandom(16), 1, os.urandom(16))
    return OpenDek(context, os.urandom(32), tenant="northwind", left=1 << 40)


def passages() -> None:
    text = ("Der Auftragsverarbeiter meldet jede Verletzung unverzüglich. " * 18)[:1000]
    body = PassageBody(text, "vertrag.pdf", "Pflichten", 3, 1000, 2000, "de", "0" * 64)
    key, cipher = dek(), AESGCM(os.urandom(32))
    sealer = PassageSealer(key, collection=bytes(16), document=key.subject, version=1, classification=1)
    point = "50515253-5455-8657-9859-5a5b5c5d5e5f"
    sealed = sealer.seal(0, point, body)
    plain, aad = os.urandom(1024), os.urandom(140)
    nonce = os.urandom(12)
    closed = cipher.encrypt(nonce, plain, aad)
    bare_seal = micros(lambda: cipher.encrypt(os.urandom(12), plain, aad), 5000)
    bare_open = micros(lambda: cipher.decrypt(nonce, closed, aad), 5000)
    line("bare AES-256-GCM, seal 1 KB", bare_seal)
    line("bare AES-256-GCM, open 1 KB", bare_open)
    line("seal a Passage", micros(lambda: sealer.seal(0, point, body), 5000), bare_seal, "target ≤ 6 ×")
    warm = micros(lambda: sealer.open(0, point, sealed), 5000)
    line("open a Passage, key warm", warm, bare_seal, "target ≤ 7 × the bare seal")
    line("  against the bare open", warm, bare_open)

    def ten() -> None:
        made = PassageSealer(key, collection=bytes(16), document=key.subject, version=1, classification=1)
        for _ in range(10):
            made.open(0, point, sealed)

    line("  with the AAD prefix built for 10 of one document", micros(ten, 500) / 10, bare_seal)


def files() -> None:
    key, cipher, data = dek(), AESGCM(os.urandom(32)), os.urandom(16 << 20)
    blocks = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]
    closed = [cipher.encrypt(bytes(12), block, b"") for block in blocks]
    sealed = b"".join(seal_file(key, "original", key.subject, 1, data))
    # Sealing drops each Frame as it comes, as a stream does; opening joins them, as the bare line beside it does.
    runs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "seal",
            lambda: sum(len(cipher.encrypt(os.urandom(12), block, b"")) for block in blocks),
            lambda: sum(len(part) for part in seal_file(key, "original", key.subject, 1, data)),
        ),
        (
            "open",
            lambda: b"".join([cipher.decrypt(bytes(12), block, b"") for block in closed]),
            lambda: open_file(key, "original", key.subject, 1, sealed),
        ),
    ]
    for what, bare, ours in runs:
        slow, own = micros(bare, 1), micros(ours, 1)
        print(f"bare {what}, 16 MiB in 64 KiB{'':<27} {len(data) / slow / 1e3:10.2f} GB/s")
        print(
            f"{what} Frames{'':<41} {len(data) / own / 1e3:10.2f} GB/s {slow / own:5.2f} of bare  target ≥ 0.5 of bare"
        )


async def keys(folder: Path) -> None:
    database = Database(f"sqlite:///{folder / 'bench.sqlite'}")
    metadata.create_all(database.engine)
    provider = FileKeys(folder / "keys", site=SITE)
    ring = Keyring(database, {SITE: provider}, mac_key=bytes(32))
    tag = b"\x55" * 32
    tags = frozenset({tag.hex()})
    made = [
        await ring.new_dek(
            route(Action.STORE, tags),
            purpose="document",
            tenant="northwind",
            jurisdiction="DE",
            subject=os.urandom(16),
            version=1,
            tag_digest=tag,
            site=SITE,
        )
        for _ in range(200)
    ]
    wanted = [(each.dek_id, tag) for each in made]
    pass_open = route(Action.OPEN, tags)

    async def timed(count: int, *, warm: bool) -> float:
        best = float("inf")
        for _ in range(30):
            if not warm:
                ring.empty()
            began = time.perf_counter()
            await ring.open_deks(pass_open, SITE, wanted[:count])
            best = min(best, time.perf_counter() - began)
        return best * 1e6

    await ring.open_deks(pass_open, SITE, wanted[:10])
    one = await timed(1, warm=True)
    line("open_deks, 1 key, warm (one query)", one)
    line("open_deks, 10 keys, warm (one query)", await timed(10, warm=True), one)
    line("open_deks, 10 keys, cold (one query, one batch)", await timed(10, warm=False), one)

    kek = KekRef(os.urandom(16), 1, "northwind", "DE", SITE)
    store = route(Action.STORE)
    await provider.create(store, kek)
    context = KeyContext(Purpose.DOCUMENT, tenant_bytes("northwind"), "DE", bytes(16), 1, bytes(16))
    aad = context.wrap_aad(kek.id, 1, NO_TAG)
    items = [((await provider.wrap(store, kek, [(bytes(32), aad)]))[0], aad)] * 1000
    began = time.perf_counter()
    await provider.unwrap(pass_open, kek, items)
    line("unwrap, file provider, in a batch of 1,000", (time.perf_counter() - began) * 1e3)
    key = os.urandom(32)
    commitment = context.commitment(key)
    cold = micros(lambda: OpenDek.proven(context, key, commitment, tenant="t", reserve=lambda _: SEAL_LIMIT), 2000)
    line("  then prove its commitment and prepare it", cold)

    for _ in range(5):
        await ring.rotate(store, tenant="northwind", jurisdiction="DE", site=SITE)
        began = time.perf_counter()
        result = await ring.rewrap(store, pass_open)
        spent = time.perf_counter() - began
    line(f"rewrap, file provider, rows and all ({result['moved']} keys)", spent / result["moved"] * 1e6)
    database.close()


async def rolled(folder: Path, count: int) -> None:
    """Rotate and rewrap `count` keys with their rows, a fresh pass for each chunk as `keys rewrap` shows one."""
    database = Database(f"sqlite:///{folder / 'rolled.sqlite'}")
    metadata.create_all(database.engine)
    provider = FileKeys(folder / "rolled", site=SITE)
    ring = Keyring(database, {SITE: provider}, mac_key=bytes(32))
    store, tag = Keystore(database), b"\x55" * 32
    made = await ring.new_dek(
        route(Action.STORE, frozenset({tag.hex()})),
        purpose="document",
        tenant="northwind",
        jurisdiction="DE",
        subject=os.urandom(16),
        version=1,
        tag_digest=tag,
        site=SITE,
    )
    [kek] = [state.ref for state in await ring.listing()]
    for _ in range(0, count, 4096):
        contexts = [
            KeyContext(Purpose.DOCUMENT, tenant_bytes("northwind"), "DE", os.urandom(16), 1, os.urandom(16))
            for _ in range(4096)
        ]
        items = [(os.urandom(32), each.wrap_aad(kek.id, 1, tag)) for each in contexts]
        wrapped = await provider.wrap(route(Action.STORE), kek, items)
        rows = [
            DekRow(each, "northwind", kek, each.commitment(item[0]), tag, sealed)
            for each, item, sealed in zip(contexts, items, wrapped, strict=True)
        ]
        await database.run(store.add, rows)
    began = time.perf_counter()
    await ring.rotate(route(Action.STORE), tenant="northwind", jurisdiction="DE", site=SITE)
    turn = time.perf_counter() - began
    began, used, moved, after = time.perf_counter(), time.process_time(), 0, b""
    while after is not None:
        step = await ring.stride(route(Action.STORE), route(Action.OPEN), kek, after)
        moved, after = moved + step.moved, step.after
    spent, used = time.perf_counter() - began, time.process_time() - used
    states = {state.ref.version: (state.state, state.left) for state in await ring.listing()}
    assert states == {1: ("retired", 0), 2: ("active", moved)}, states
    assert await ring.open_deks(route(Action.OPEN, frozenset({tag.hex()})), SITE, [(made.dek_id, tag)])
    line("rotate a KEK (file provider)", turn * 1e6)
    line(f"rewrap with rows and commits, {moved:,} keys", spent / moved * 1e6)
    line("  of which this process computed", used / moved * 1e6)
    million = spent / moved * 1e6
    said = "measured" if moved >= 1_000_000 else f"extrapolated from {moved:,}"
    load = os.getloadavg()[0]
    print(f"{'rewrap of 1,000,000 keys, ' + said:<52} {million:10.1f} s            target < 60 s (load {load:.1f})")
    database.close()


def search() -> None:
    matrix = make(384)
    vectors = np.random.default_rng(1).standard_normal((256, 384)).astype(np.float32)
    bare = micros(lambda: vectors @ matrix, 50) / 256
    line("rotate a vector, 256 at once", micros(lambda: rotate(vectors, matrix), 50) / 256, bare, "target ≤ 1.3 ×")
    line("rotate a vector, alone", micros(lambda: rotate(vectors[0], matrix), 500))
    text = " ".join(f"Wort{number % 90} verarbeitung" for number in range(60))
    cold = micros(lambda: Lexicon(bytes(32)).passage(text, "de"), 50)
    lexicon = Lexicon(bytes(32))
    line("blind a passage of 120 words, nothing cached", cold)
    line("blind a passage of 120 words, cached", micros(lambda: lexicon.passage(text, "de"), 200), cold)


def main() -> None:
    passages()
    files()
    search()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        asyncio.run(keys(Path(folder)))
        asyncio.run(rolled(Path(folder), int(os.environ.get("BENCH_KEYS", "100000"))))


if __name__ == "__main__":
    main()
