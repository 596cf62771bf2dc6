"""What the portal carries that is not ours: named, licensed, and unchanged to the byte."""

import hashlib
import tomllib
from pathlib import Path

import service.portal

VENDOR = Path(service.portal.__file__).parent / "static" / "vendor"
PACKAGES = tomllib.loads((VENDOR / "VENDOR.toml").read_text(encoding="utf-8"))["package"]


def digests() -> dict[str, str]:
    return {name: digest for package in PACKAGES for name, digest in package["sha256"].items()}


def test_every_vendored_file_is_what_its_publisher_published() -> None:
    for name, digest in digests().items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_no_vendored_file_is_without_a_line_in_the_list() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {*digests(), "VENDOR.toml"}


def test_every_vendored_package_brings_its_licence() -> None:
    for package in PACKAGES:
        assert package["name"]
        assert package["version"]
        assert package["licence"] == "Apache-2.0"
        assert package["licence_files"]
        for name in package["licence_files"]:
            assert name in package["sha256"]
        assert "Apache License" in (VENDOR / package["licence_files"][0]).read_text(encoding="utf-8")


def test_a_changed_byte_would_be_seen() -> None:
    name, digest = next(iter(digests().items()))
    assert hashlib.sha256((VENDOR / name).read_bytes() + b" ").hexdigest() != digest
