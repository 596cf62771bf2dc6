"""compose.yaml keeps what its head promises: no way out, nothing published but on loopback, hardened, silent.

The file is read by a strict loader (a key written twice is an error) and checked against the compose specification's
JSON schema, `compose_spec.json`, which is taken unchanged from docker-compose 1.29.2 (Apache-2.0); it is older than the
top-level `name`. Each rule has a twin here that breaks it and must go red. No container is started.
"""

import copy
import json
import runpy
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from residency.fleet import Fleet
from residency.outlets.tls import trust
from residency.site import Site
from residency.zones import Zones
from service.settings import load
from tests.doubles.tls_counting import server

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DOOR = "door"
"""The one network that is not internal."""
JOBS = {"migrate", "setup"}
"""Services that end; others wait for their end, so they need no health check."""


class StrictLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
    """A safe loader that refuses a key written twice in one mapping, which YAML would silently let the last one win."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    written = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    if twice := {key for key in written if written.count(key) > 1}:
        raise yaml.constructor.ConstructorError(None, None, f"written twice: {min(twice)}", node.start_mark)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read(text: str) -> dict[str, Any]:
    loaded = yaml.load(text, Loader=StrictLoader)
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read((ROOT / "compose.yaml").read_text("utf-8"))


# --- the rules: each names what is wrong ----------------------------------------------------------------------------


def unhealthy(compose: dict[str, Any]) -> list[str]:
    faults = [n for n, s in compose["services"].items() if n not in JOBS and not s.get("healthcheck", {}).get("test")]
    for name, service in compose["services"].items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in JOBS else "service_healthy"
            if how["condition"] != wanted or other not in compose["services"]:
                faults.append(f"{name} depends on {other}: {how['condition']}")
    return faults


def soft(compose: dict[str, Any]) -> list[str]:
    faults = []
    for name, service in compose["services"].items():
        account = str(service.get("user", "0")).partition(":")[0]
        checks = {
            "privileged": not service.get("privileged", False),
            "read-only root": service.get("read_only") is True,
            "no capabilities": service.get("cap_drop") == ["ALL"] and not service.get("cap_add"),
            "no new privileges": "no-new-privileges:true" in service.get("security_opt", []),
            "no core dumps": service.get("ulimits", {}).get("core") == 0,
            "an ordinary account": account.isdecimal() and int(account) > 0,
            "no host namespaces": not {"pid", "ipc", "network_mode", "userns_mode"} & service.keys(),
            "no host devices or sockets": not service.get("devices")
            and not any("docker.sock" in str(volume) for volume in service.get("volumes", [])),
            "temporary files in memory": bool(service.get("tmpfs")),
        }
        faults += [f"{name}: {what}" for what, good in checks.items() if not good]
    return faults


def ways_out(compose: dict[str, Any]) -> list[str]:
    faults = [n for n, net in compose["networks"].items() if n != DOOR and (net or {}).get("internal") is not True]
    options = compose["networks"][DOOR].get("driver_opts", {})
    if options.get("com.docker.network.bridge.enable_ip_masquerade") != "false":
        faults.append("the door masquerades")
    for name, service in compose["services"].items():
        networks = service.get("networks", [])
        if not networks or not set(networks) <= compose["networks"].keys():
            faults.append(f"{name}: on the default network, or an unknown one")
        if DOOR in networks and not service.get("ports"):
            faults.append(f"{name}: stands at the door without a port")
        if DOOR in networks and set(networks) - {DOOR, "front"}:
            faults.append(f"{name}: stands at the door and further in")
        if any(not str(port).startswith("127.0.0.1:") for port in service.get("ports", [])):
            faults.append(f"{name}: a port that is not on loopback")
    zones = [n for n in compose["networks"] if n.startswith("zone-")]
    for name, service in compose["services"].items():
        if name.startswith("qdrant-") and service["networks"] != [name.replace("qdrant-", "zone-")]:
            faults.append(f"{name}: not in its own zone alone")
    return faults if len(zones) >= 2 else [*faults, "fewer than two zones"]


def open_secrets(compose: dict[str, Any]) -> list[str]:
    faults = [n for n, secret in compose["secrets"].items() if set(secret) != {"file"}]
    suspect = ("PASSWORD", "API_KEY", "SECRET", "TOKEN")
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if any(word in key.upper() for word in suspect) and not key.endswith("_FILE"):
                faults.append(f"{name}: {key} in the environment")
            if str(value).startswith("/run/secrets/") and Path(value).name not in _names(service):
                faults.append(f"{name}: {key} names a secret it does not get")
        if "env_file" in service:
            faults.append(f"{name}: env_file")
        faults += [f"{name}: no secret {item}" for item in _names(service) - compose["secrets"].keys()]
    return faults


def talkative(compose: dict[str, Any]) -> list[str]:
    faults = []
    for name, service in compose["services"].items():
        image, env = service["image"], service.get("environment", {})
        wanted: dict[str, str] = {}
        if image.startswith("qdrant/"):
            wanted = {
                "QDRANT__TELEMETRY_DISABLED": "true",
                "QDRANT__SERVICE__ENABLE_TLS": "true",
                "QDRANT__SERVICE__VERIFY_HTTPS_CLIENT_CERTIFICATE": "true",
                "QDRANT__SERVICE__ENABLE_CORS": "false",
                "QDRANT__SERVICE__ENABLE_SNAPSHOT_URL_RECOVERY": "false",
                "QDRANT__STORAGE__OPTIMIZERS__DELETED_THRESHOLD": "0.0",
            }
            if not any(secret.get("target") == "/qdrant/config/local.yaml" for secret in _long(service)):
                faults.append(f"{name}: answers without a key")
        if image.startswith("vllm/"):
            wanted = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        faults += [f"{name}: {key}" for key, value in wanted.items() if env.get(key) != value]
    return faults


def unpinned(compose: dict[str, Any]) -> list[str]:
    tags = {name: service["image"].partition(":")[2] for name, service in compose["services"].items()}
    return [name for name, tag in tags.items() if not any(letter.isdigit() for letter in tag) or "latest" in tag]


def _long(service: dict[str, Any]) -> list[dict[str, str]]:
    return [secret for secret in service.get("secrets", []) if isinstance(secret, dict)]


def _names(service: dict[str, Any]) -> set[str]:
    return {item["source"] if isinstance(item, dict) else item for item in service.get("secrets", [])}


RULES: list[Callable[[dict[str, Any]], list[str]]] = [unhealthy, soft, ways_out, open_secrets, talkative, unpinned]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_file_keeps_every_rule(compose: dict[str, Any], rule: Callable[[dict[str, Any]], list[str]]) -> None:
    assert rule(compose) == []


# --- the twins: each breaks one rule --------------------------------------------------------------------------------

BREAKS: dict[str, tuple[Callable[[dict[str, Any]], list[str]], Callable[[dict[str, Any]], Any]]] = {
    "no health check": (unhealthy, lambda c: c["services"]["api"].pop("healthcheck")),
    "waits for a start only": (
        unhealthy,
        lambda c: c["services"]["api"]["depends_on"]["postgres"].update(condition="service_started"),
    ),
    "does not wait for the job": (
        unhealthy,
        lambda c: c["services"]["api"]["depends_on"]["setup"].update(condition="service_healthy"),
    ),
    "privileged": (soft, lambda c: c["services"]["worker"].update(privileged=True)),
    "writable root": (soft, lambda c: c["services"]["qdrant-de"].update(read_only=False)),
    "a capability back": (soft, lambda c: c["services"]["postgres"].update(cap_add=["CHOWN"])),
    "may gain privileges": (soft, lambda c: c["services"]["edge"].update(security_opt=[])),
    "core dumps": (soft, lambda c: c["services"]["generator"].pop("ulimits")),
    "root": (soft, lambda c: c["services"]["api"].update(user="0:0")),
    "no account": (soft, lambda c: c["services"]["api"].pop("user")),
    "the host's network": (soft, lambda c: c["services"]["api"].update(network_mode="host")),
    "the engine's socket": (soft, lambda c: c["services"]["edge"].update(volumes=["/var/run/docker.sock:/s"])),
    "temporary files on disk": (soft, lambda c: c["services"]["api"].pop("tmpfs")),
    "an open network": (ways_out, lambda c: c["networks"].update({"zone-fr": {}})),
    "the door masquerades": (ways_out, lambda c: c["networks"]["door"].pop("driver_opts")),
    "a worker at the door": (ways_out, lambda c: c["services"]["worker"]["networks"].append("door")),
    "the proxy in a zone": (ways_out, lambda c: c["services"]["edge"]["networks"].append("zone-de")),
    "the default network": (ways_out, lambda c: c["services"]["worker"].pop("networks")),
    "a port for everyone": (ways_out, lambda c: c["services"]["edge"].update(ports=["8000:8000"])),
    "a published database": (ways_out, lambda c: c["services"]["postgres"].update(ports=["0.0.0.0:5432:5432"])),
    "a Qdrant in two zones": (ways_out, lambda c: c["services"]["qdrant-de"]["networks"].append("zone-fr")),
    "a secret from the environment": (
        open_secrets,
        lambda c: c["secrets"].update(generator_key={"environment": "KEY"}),
    ),
    "a password in the environment": (
        open_secrets,
        lambda c: c["services"]["postgres"]["environment"].update(POSTGRES_PASSWORD="x"),
    ),
    "a key in the environment": (
        open_secrets,
        lambda c: c["services"]["qdrant-de"]["environment"].update(QDRANT__SERVICE__API_KEY="x"),
    ),
    "a secret nobody made": (open_secrets, lambda c: c["services"]["api"]["secrets"].append("another")),
    "a secret not handed over": (open_secrets, lambda c: c["services"]["postgres"].pop("secrets")),
    "an env file": (open_secrets, lambda c: c["services"]["api"].update(env_file=".env")),
    "Qdrant reports home": (
        talkative,
        lambda c: c["services"]["qdrant-fr"]["environment"].pop("QDRANT__TELEMETRY_DISABLED"),
    ),
    "Qdrant fetches snapshots": (
        talkative,
        lambda c: c["services"]["qdrant-fr"]["environment"].update(
            QDRANT__SERVICE__ENABLE_SNAPSHOT_URL_RECOVERY="true"
        ),
    ),
    "Qdrant asks for no certificate": (
        talkative,
        lambda c: c["services"]["qdrant-de"]["environment"].pop("QDRANT__SERVICE__VERIFY_HTTPS_CLIENT_CERTIFICATE"),
    ),
    "Qdrant without a key": (talkative, lambda c: c["services"]["qdrant-fr"].update(secrets=[])),
    "vLLM reports home": (talkative, lambda c: c["services"]["generator"]["environment"].pop("VLLM_NO_USAGE_STATS")),
    "latest": (unpinned, lambda c: c["services"]["edge"].update(image="haproxy:latest")),
    "no tag": (unpinned, lambda c: c["services"]["postgres"].update(image="postgres")),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_file_is_caught(compose: dict[str, Any], broken: str) -> None:
    rule, damage = BREAKS[broken]
    # JSON and back: anchors make services share their parts, and the damage must touch one service alone
    damaged = json.loads(json.dumps(compose))
    damage(damaged)
    assert rule(damaged)


# --- form -----------------------------------------------------------------------------------------------------------


def test_the_file_meets_the_schema_of_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads((HERE / "compose_spec.json").read_text("utf-8"))
    plain = {key: value for key, value in compose.items() if key != "name"}
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(plain)] == []
    wrong = copy.deepcopy(plain)
    wrong["services"]["api"]["helthcheck"] = {}
    assert list(validator.iter_errors(wrong))


def test_a_key_written_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="written twice"):
        read("services:\n  api: {image: a}\n  api: {image: b}\n")


def test_every_file_it_names_is_there_or_is_made_by_the_script(compose: dict[str, Any], tmp_path: Path) -> None:
    for config in compose["configs"].values():
        assert (ROOT / config["file"]).is_file()
    made = make(tmp_path / "secrets")
    assert {Path(secret["file"]).name for secret in compose["secrets"].values()} <= set(made)
    assert make(tmp_path / "secrets") == []
    root = tmp_path / "secrets" / "zones" / "de" / "root.key"
    assert root.stat().st_mode & 0o777 == 0o600
    assert not any("root.key" in secret["file"] for secret in compose["secrets"].values())
    (tmp_path / "secrets" / "zones" / "de" / "service.pem").unlink()  # as one that was about to end
    assert make(tmp_path / "secrets") == ["service_de_cert"]


def make(folder: Path) -> list[str]:
    """Run the script into another folder than its own."""
    made: list[str] = runpy.run_path(str(ROOT / "examples" / "compose" / "make_secrets.py"))["make"](folder)
    return made


def shaken(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Shake hands in memory and say one word each way; raises `ssl.SSLError` where either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):  # in TLS 1.3 the client is done before the server has looked at its certificate
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    here.write(b"hello")
    assert there.read() == b"hello"


def test_qdrant_and_domicile_show_each_other_certificates_of_that_zones_own_root(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    make(tmp_path)
    fleet = Fleet.load(ROOT / compose["configs"]["fleet"]["file"], Zones.load(ROOT / "policies" / "zones.toml"))

    def file(secret: str) -> Path:
        return tmp_path / Path(secret).name

    def ours(site: Site) -> ssl.SSLContext:
        shard = site.holding("shard")
        assert shard is not None
        how = site.trust(shard)
        assert {Path(each).name for each in (how.trust_root, how.certificate, how.certificate_key)} <= _names(
            compose["services"]["api"]
        )
        return trust(file(how.trust_root), certificate=file(how.certificate), key=file(how.certificate_key))

    def theirs(zone: str) -> ssl.SSLContext:
        set_to = compose["services"][f"qdrant-{zone}"]["environment"]
        certificate, key, root = (file(set_to[f"QDRANT__TLS__{name}"]) for name in ("CERT", "KEY", "CA_CERT"))
        return server(certificate, key, clients=root)

    german, french = fleet.site("de-frankfurt"), fleet.site("fr-paris")
    shaken(ours(german), theirs("de"), "qdrant-de")
    shaken(ours(french), theirs("fr"), "qdrant-fr")
    shaken(ours(german), theirs("de"), "generator")
    with pytest.raises(ssl.SSLError):  # we believe no other zone's server
        shaken(ours(french), theirs("de"), "qdrant-de")
    shared = ssl.create_default_context(cafile=tmp_path / "zone_de_root")
    with pytest.raises(ssl.SSLError):  # and it takes nobody who has nothing to show
        shaken(shared, theirs("de"), "qdrant-de")
    shared.load_cert_chain(tmp_path / "service_fr_cert", tmp_path / "service_fr_tls_key")
    with pytest.raises(ssl.SSLError):  # or shows another zone's
        shaken(shared, theirs("de"), "qdrant-de")


def test_the_settings_and_the_fleet_load(compose: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "domicile.toml").write_bytes((ROOT / compose["configs"]["settings"]["file"]).read_bytes())
    for service in compose["services"].values():
        if service["image"].startswith("domicile:"):
            environment = {key: str(value) for key, value in service["environment"].items()}
            settings = load(tmp_path, environ=environment)
            assert settings.database.password_file == "/run/secrets/postgres_password"
            assert settings.rules.fleet in {config["target"] for config in service["configs"]}
    fleet = Fleet.load(ROOT / compose["configs"]["fleet"]["file"], Zones.load(ROOT / "policies" / "zones.toml"))
    api = compose["services"]["api"]
    for site in fleet.sites.values():
        shard = site.holding("shard")
        assert shard is not None
        host = shard.url.removeprefix("https://").partition(":")[0]
        assert host in compose["services"]
        assert Path(shard.settings["key_file"]).name in api["secrets"]
