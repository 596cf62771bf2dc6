"""A street of rooms: the service in one, and across a cable each a German and a French Site, a foil in the United
States, a generator, a resolver, and everything else that an address could stand for.

The service is the real `domicile` in a real process; what stands across the cables are the protocol doubles. Everything
it sends is witnessed three times over: by the kernel's counter of what the generated ruleset does not allow, by a
capture, and by the resolver.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from residency.fleet import Fleet
from service.firewall import nft, openings
from service.home import rules
from service.outfitting import destinations
from service.settings import Settings
from tests.doubles import qdrant_http
from tests.doubles.certificates import authority
from tests.doubles.homes import ROOT, home, key, settings
from tests.doubles.openai_http import OpenAIEndpoint
from tests.doubles.qdrant_http import QdrantDouble
from tests.doubles.rooms import Capture, NameServer, Room, strewn

T = TypeVar("T")

PLACES = {"de": "10.77.1", "fr": "10.77.2", "us": "10.77.3", "writer": "10.77.4", "names": "10.77.5", "out": "10.77.9"}
"""Room → its cable; the service stands at .1 of each, the other end at .2."""
SITES = {"de": ("DE", "de-frankfurt"), "fr": ("FR", "fr-paris"), "us": ("US", "us-ashburn")}
HOSTS = {f"qdrant-{code}.example": f"{PLACES[code]}.2" for code in SITES} | {"writer.example": f"{PLACES['writer']}.2"}
"""What the Fleet calls its hosts, and where they stand."""
RESOLVER = f"{PLACES['names']}.2"
ELSEWHERE = "203.0.113.9"
"""Where the resolver says that any other name stands."""
QDRANT, WRITER = 6333, 8443
METADATA = "http://169.254.169.254/latest/meta-data/"
HOSTILE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), "http://203.0.113.3:3128"),
    **dict.fromkeys(("https_proxy", "all_proxy", "grpc_proxy"), "http://203.0.113.3:3128"),
    "NLTK_DATA": "/nonexistent",
    "OPENAI_API_KEY": "sk-not-a-key",
    "OPENAI_BASE_URL": "http://203.0.113.4/v1",
    "OPENAI_API_BASE": "http://203.0.113.4/v1",
    "HF_ENDPOINT": "http://203.0.113.5",
    "NO_PROXY": "",
    "no_proxy": "",
}
"""Variables that would lead traffic elsewhere; none of those by which CI services are told, since some telemetry hides
under them."""


@dataclass
class Site:
    """A Qdrant server across a cable; `stop` takes it down and `start` brings it back as it was."""

    double: QdrantDouble
    room: Room
    serve: Callable[[], ExitStack]
    running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.running = self.room.do(self.serve)

    def stop(self) -> None:
        self.running.close()


class Street:
    """What a test handles."""

    def __init__(self, folder: Path, onnx: Path, stack: ExitStack, *, confined: bool) -> None:
        self.folder = folder
        self.service = stack.enter_context(Room())
        self.rooms = {name: stack.enter_context(Room()) for name in PLACES}
        for name, cable in PLACES.items():
            self.service.join(self.rooms[name], name, f"{cable}.1", f"{cable}.2")
        gate = PLACES["out"]
        self.service.run("ip", "route", "add", "default", "via", f"{gate}.2", "dev", "out", "src", f"{gate}.1")
        self.rooms["out"].run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")  # every address is there
        self.names = NameServer(self.rooms["names"], RESOLVER, HOSTS, elsewhere=ELSEWHERE)
        stack.callback(self.names.stop)
        self.sites = {code: self._site(code, stack) for code in SITES}
        self.writer = self._writer(stack)
        (folder / "user").mkdir()
        (folder / "fleet.toml").write_text(self._fleet_file())
        home(folder / "home", onnx, fleet=folder / "fleet.toml")
        self.settings: Settings = settings(folder / "home")
        self.fleet: Fleet = rules(self.settings)[2]
        self.open_to = openings(destinations(self.settings, self.fleet), lambda host: [HOSTS[host]])
        ruleset = nft(self.open_to, fleet=self.fleet.digest, resolvers=[RESOLVER])
        if not confined:  # let a leak out, so that every witness has to see it for itself
            ruleset = ruleset.replace("policy drop", "policy accept").replace('leaked " drop', 'leaked " accept')
        self.service.run("nft", "-f", "-", stdin=ruleset)
        self.capture = Capture(self.service)
        stack.callback(self.capture.stop)

    def _site(self, code: str, stack: ExitStack) -> Site:
        zone, site_id = SITES[code]
        root = authority(zone, self.folder, names=[f"qdrant-{code}.example"])
        double = QdrantDouble(api_key=secrets.token_hex(16))
        (self.folder / f"{site_id}.key").write_text(double.api_key)

        def serve() -> ExitStack:
            running = ExitStack()
            running.enter_context(qdrant_http.serving(double, tls=root.serving, place=(f"{PLACES[code]}.2", QDRANT)))
            return running

        site = Site(double, self.rooms[code], serve)
        site.start()
        stack.callback(site.stop)
        return site

    def _writer(self, stack: ExitStack) -> OpenAIEndpoint:
        root = authority("DE-writer", self.folder, names=["writer.example"])
        place = (f"{PLACES['writer']}.2", WRITER)
        endpoint = OpenAIEndpoint(pieces=("The lamp is red ", "[1]."), tls=root.serving, place=place)
        loop, ready, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

        async def stand() -> None:
            async with endpoint:
                ready.set()
                await over.wait()

        def run() -> None:
            self.rooms["writer"].enter()
            loop.run_until_complete(stand())
            loop.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        if not ready.wait(10):
            raise OSError("the generator's double did not start")
        stack.callback(thread.join)
        stack.callback(loop.call_soon_threadsafe, over.set)
        return endpoint

    def _fleet_file(self) -> str:
        text = ""
        for code, (zone, site_id) in SITES.items():
            writes = f'  {{ kind = "generator", url = "https://writer.example:{WRITER}/v1", model = "m", '
            writes += f'trust_root = "{self.folder}/DE-writer-root.pem" }},\n'
            text += f"""
[[site]]
id = "{site_id}"
zone = "{zone}"
operator = {{ name = "Example {zone}", zone = "{zone}" }}
evidence = [{{ grade = 1, claim = "place", source = "declared in this file", date = 2026-01-15 }}]
holds = [
  {{ kind = "shard", url = "https://qdrant-{code}.example:{QDRANT}", key_file = "{self.folder}/{site_id}.key", \
trust_root = "{self.folder}/{zone}-root.pem" }},
  {{ kind = "vault", url = "folder:" }},
  {{ kind = "keys", url = "file:" }},
  {{ kind = "embedder", url = "bundled:" }},
{writes if code == "de" else ""}]
"""
        return text

    def key(self, tenant: str, ceiling: Sequence[str]) -> str:
        """Make a tenant and give a key of it with every scope."""
        return key(self.settings, tenant, "ask", "upload", "report", ceiling=ceiling)

    @contextmanager
    def serving(self, *program: str, **changes: str) -> Iterator["Running"]:
        """Run `domicile serve` (or the program given in its place) in the service's room until the end of the block."""
        command = program or (str(Path(sys.executable).with_name("domicile")),)
        environment = {
            "HOME": str(self.folder / "user"),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "DOMICILE_MODELS__THREADS": "1",
            **HOSTILE,
            **{f"DOMICILE_{name.upper()}": value for name, value in changes.items()},
        }
        process = self.service.start(
            *command,
            *("serve", "--home", str(self.folder / "home")),
            resolver=RESOLVER,
            writable=[self.folder],
            environment=environment,
            output=self.folder / "output.txt",
        )
        running = Running(self, process)
        try:
            running.wait_until_ready()
            yield running
        finally:
            for caller in running.callers:
                caller.close()
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # --- what was seen ------------------------------------------------------------------------------------------------

    def leaked(self) -> int:
        """Give the kernel's count of packets beyond the ruleset, dropped or not."""
        listed = json.loads(self.service.run("nft", "--json", "list", "counters"))["nftables"]
        return int(next(each["counter"]["packets"] for each in listed if "counter" in each))

    def complaints(self) -> list[str]:
        """Name what was sent to anybody but the Fleet and the resolver; an empty list is silence."""
        allowed = {("tcp", each.address, each.port) for each in self.open_to} | {("udp", RESOLVER, 53)}
        found = [
            f"{count} packets by {kind} to {host}:{port}"
            for (kind, host, port), count in self.capture.seen.items()
            if (kind, host, port) not in allowed
        ]
        found += [f"asked for the name {name}" for name in dict.fromkeys(self.names.asked) if name not in HOSTS]
        if packets := self.leaked():
            found.append(f"{packets} packets beyond the ruleset")
        return found

    def left_behind(self) -> list[str]:
        """List files in the account's own folder, where libraries keep caches and device ids."""
        return sorted(str(path) for path in (self.folder / "user").rglob("*") if path.is_file())


class Running:
    """The service while it runs."""

    URL = "http://127.0.0.1:8000"

    def __init__(self, street: Street, process: "subprocess.Popen[bytes]") -> None:
        self._street = street
        self.process = process
        self.callers: list[httpx.Client] = []

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.do(lambda: httpx.get(f"{self.URL}/livez", timeout=1, trust_env=False)).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError((self._street.folder / "output.txt").read_text()[-2000:])

    def do(self, story: Callable[[], T]) -> T:
        """Do a piece of a story inside the service's room, where its loopback is."""
        return self._street.service.do(story)

    def caller(self, api_key: str) -> httpx.Client:
        """Give an HTTP client; it must be used inside `do`."""
        headers = {"Authorization": f"Bearer {api_key}"}
        made = httpx.Client(base_url=self.URL, headers=headers, timeout=60, trust_env=False)
        self.callers.append(made)
        return made

    def metric(self, name: str) -> float:
        """Read one figure of `/metrics`."""
        text = self.do(lambda: httpx.get(f"{self.URL}/metrics", timeout=5, trust_env=False)).text
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def strewn(self) -> list[str]:
        """List files it left in folders that anybody may write to."""
        return strewn(self.process)


@contextmanager
def street(folder: Path, onnx: Path, *, confined: bool) -> Iterator[Street]:
    """Build it, and take it down whatever happens."""
    with ExitStack() as stack:
        yield Street(folder, onnx, stack, confined=confined)
