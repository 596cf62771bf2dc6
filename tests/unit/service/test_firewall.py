"""What the operator's walls let out: the Fleet, the database, named resolvers; and that nft takes what we write."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import InvalidRequestError
from service.firewall import Opening, nft, openings, systemd
from tests.doubles.lacking import lacking, need

KNOWN = {"qdrant-de.example": ["10.0.0.2", "2001:db8::2"], "qdrant-fr.example": ["10.0.1.2"]}
FLEET = "sha256:00ff"
PLACES = [("qdrant-de.example", 6333), ("qdrant-fr.example", 6333), ("10.0.0.2", 6333), ("127.0.0.1", 8000)]


def look_up(host: str) -> list[str]:
    return KNOWN.get(host, [host])


@pytest.fixture
def open_to() -> list[Opening]:
    return openings(PLACES, look_up)


def test_openings_are_addresses_and_loopback_is_none(open_to: list[Opening]) -> None:
    assert [(each.address, each.port) for each in open_to] == [
        ("10.0.0.2", 6333),
        ("10.0.0.2", 6333),
        ("10.0.1.2", 6333),
        ("2001:db8::2", 6333),
    ]


def test_a_ruleset_lets_out_pairs_of_address_and_port_and_counts_the_rest(open_to: list[Opening]) -> None:
    text = nft(open_to, fleet=FLEET, resolvers=["10.0.9.53"])
    assert FLEET in text
    assert text.count("10.0.0.2 . 6333") == 1
    assert "2001:db8::2 . 6333" in text
    assert "ip6 daddr . tcp dport @allowed6 accept" in text
    assert "ip daddr 10.0.9.53 meta l4proto { tcp, udp } th dport 53 accept" in text
    assert text.rstrip().splitlines()[-3].strip() == 'counter name leaked log prefix "domicile leaked " drop'
    assert "policy drop" in text


def test_a_fleet_of_this_machine_alone_opens_nothing() -> None:
    text = nft([], fleet=FLEET)
    assert "allowed" not in text
    assert "dport" not in text
    assert "IPAddressAllow" not in systemd([], fleet=FLEET).replace("IPAddressAllow=localhost", "")


def test_with_an_account_the_rest_of_the_machine_is_left_alone(open_to: list[Opening]) -> None:
    text = nft(open_to, fleet=FLEET, account="domicile")
    assert 'meta skuid "domicile" goto confined' in text
    assert "policy accept" in text
    assert "policy drop" not in text


def test_a_drop_in_denies_everything_and_lists_addresses(open_to: list[Opening]) -> None:
    text = systemd(open_to, fleet=FLEET, resolvers=["10.0.9.53"], callers=["10.0.8.0/24"])
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines[:3] == ["[Service]", "IPAddressDeny=any", "IPAddressAllow=localhost"]
    allowed = [line.removeprefix("IPAddressAllow=") for line in lines if line.startswith("IPAddressAllow=")]
    assert allowed == ["localhost", "10.0.0.2", "10.0.1.2", "2001:db8::2", "10.0.9.53", "10.0.8.0/24"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: nft([], fleet=FLEET, resolvers=["10.0.0.2 accept"]),
        lambda: nft([], fleet=FLEET, account='x" accept; "'),
        lambda: systemd([], fleet=FLEET, callers=["everybody"]),
    ],
)
def test_what_is_no_address_or_account_is_refused(wrong: Callable[[], str]) -> None:
    with pytest.raises(InvalidRequestError):
        wrong()


def test_a_name_cannot_write_rules() -> None:
    text = nft([Opening("10.0.0.2", 1, 'x"\n accept')], fleet=FLEET)
    assert 'comment "x___accept"' in text


@pytest.mark.parametrize("account", ["", "0"])
def test_nft_takes_it(open_to: list[Opening], account: str) -> None:
    need("nft", package="nftables")
    text = nft(open_to, fleet=FLEET, resolvers=["10.0.9.53", "2001:db8::53"], account=account)
    done = subprocess.run(["nft", "--check", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        lacking("nft reads rules for root alone")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", ["", "IPAddressAllow=everybody"])
def test_systemd_takes_it(open_to: list[Opening], tmp_path: Path, wrong: str) -> None:
    need("systemd-analyze", package="systemd")
    unit = tmp_path / "checked.service"
    text = systemd(open_to, fleet=FLEET, resolvers=["10.0.9.53"], callers=["10.0.8.0/24"])
    unit.write_text(f"{text}ExecStart=/bin/true\n{wrong}\n")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert ("checked.service" in done.stderr) == bool(wrong), done.stderr
