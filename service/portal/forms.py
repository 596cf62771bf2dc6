"""Forms: small bodies of forms as fields, and what the upload form says of a Document."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from litestar.exceptions import ClientException
from multipart import parse_options_header

from ingestion.claims import Claim
from service.api.replies import Asking
from service.errors import InvalidRequestError

Fields = dict[str, list[str]]


async def fields(request: Asking) -> Fields:
    """Read a form that carries no files; anything else gives no fields."""
    kind, _ = parse_options_header(request.headers.get("content-type", ""))
    if kind != "application/x-www-form-urlencoded":
        return {}
    raw = await request.body()
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise ClientException("the form cannot be read") from error
    found: Fields = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def one(given: Mapping[str, Sequence[str]], name: str, default: str = "") -> str:
    """Give the first value of a field."""
    values = given.get(name) or [default]
    return values[0]


def claim_of(given: Mapping[str, Sequence[str]], name: str, media_type: str = "") -> Claim:
    """Read what the upload form says of a Document; an empty residency asks for the default of its jurisdictions."""
    residency = codes(given, "residency")
    level = one(given, "classification", "1")
    if not level.isdigit():
        raise InvalidRequestError("the classification is no number", param="classification", hint="choose 0 to 4")
    return Claim(
        name=name,
        jurisdictions=codes(given, "jurisdiction"),
        collection=one(given, "collection") or "default",
        residency=residency or None,
        personal=one(given, "personal", "true") != "false",
        categories=codes(given, "categories"),
        classification=int(level),
        media_type=media_type,
    )


def codes(given: Mapping[str, Sequence[str]], name: str) -> frozenset[str]:
    """Give the codes of a field, which are separated by commas."""
    return frozenset(code.strip() for value in given.get(name, ()) for code in value.split(",") if code.strip())
