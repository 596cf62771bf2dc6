"""Uploads over HTTP: tus 1.0.0, so that a large file may come in pieces and go on after a break.

Core protocol, creation, expiration, checksum and termination (tus.io/protocols/resumable-upload 1.0.0). What is
declared of the Document stands in `Upload-Metadata`, under the names of `PUT /v1/documents/{name}`; its values are
data: they are bounded, sealed, and given back in no header but the one they came in.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final, cast

from litestar import Controller, Response, delete, head, patch, post
from litestar.connection import ASGIConnection
from litestar.exceptions import InternalServerException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath
from litestar.types import Message, Scope

from ingestion.claims import Claim
from ingestion.errors import TagError, TooLargeError
from ingestion.intake import Refused
from ingestion.uploads import Begun
from service.api.describing import RAW, described
from service.api.replies import Asking, house_of, refused, reply, request_id
from service.errors import InvalidRequestError
from service.problems import problem

VERSION: Final = "1.0.0"
PATH: Final = "/v1/uploads"
TYPE: Final = "application/offset+octet-stream"
DIGESTS: Final = ("sha1", "sha256")
"""sha1 is what the checksum extension asks every server for; here it finds a damaged line, nothing more."""
LONGEST: Final = 8192
"""Characters of `Upload-Metadata` at most."""
KNOWN: Final = frozenset(
    {"name", "filename", "filetype", "jurisdiction", "residency", "collection", "personal", "categories"}
    | {"classification", "groups", "folder"}
)
_NUMBER: Final = re.compile(r"[0-9]{1,15}")


class TusVersionError(InvalidRequestError):
    """The call speaks no version of tus, or another one."""

    code = "tus_version_unsupported"


def versioned(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse a call that does not say that it speaks tus 1.0.0. Raises `TusVersionError`."""
    if connection.scope.get("method") != "OPTIONS" and connection.headers.get("tus-resumable") != VERSION:
        raise TusVersionError(
            "the call does not speak tus 1.0.0", param="Tus-Resumable", hint="send the header Tus-Resumable: 1.0.0"
        )


async def resumable(message: Message, scope: Scope) -> None:
    """Put the version of tus on every reply of an upload, also where something refused it before its handler.

    OPTIONS is the framework's own call; to it this says what the server speaks.
    """
    if message["type"] != "http.response.start" or not scope["path"].startswith(PATH):
        return
    own = {"tus-resumable": VERSION}
    if message["status"] == 412 or scope.get("method") == "OPTIONS":
        own["tus-version"] = VERSION
    if scope.get("method") == "OPTIONS":
        own |= {
            "tus-extension": "creation,expiration,checksum,termination",
            "tus-max-size": str(scope["litestar_app"].state.house.uploads.max_bytes),
            "tus-checksum-algorithm": ",".join(DIGESTS),
        }
    added = [(name.encode(), value.encode()) for name, value in own.items()]
    message["headers"] = [*message.get("headers", ()), *added]


class UploadsController(Controller):
    """Begin, look, send, give up."""

    path = "/uploads"
    tags = ["Uploads"]  # noqa: RUF012 - Litestar's protocol
    guards = [versioned]  # noqa: RUF012

    @post("/", opt={"scope": "upload", "problems": (412, 507)}, operation_id="beginUpload", status_code=201)
    async def begin(self, request: Asking) -> Response[Any]:
        """Begin an upload: `Upload-Length` says how long, `Upload-Metadata` what it is; 403 before any byte is sent."""
        house = house_of(request)
        if "upload-defer-length" in request.headers:
            raise InvalidRequestError(
                "the length must be known",
                param="Upload-Defer-Length",
                hint="send Upload-Length with the size in bytes",
            )
        length = _number(request, "Upload-Length")
        said = request.headers.get("upload-metadata", "")
        claim = _claim(_metadata(said))
        if not claim.placed(house.intake.tag_rules()).jurisdictions:
            raise TagError("no jurisdiction was declared", hint="add `jurisdiction` to Upload-Metadata, such as DE")
        begun = await house.uploads.begin(request.user, claim, length, said)
        if isinstance(begun, Refused):
            return refused(request, begun.refusal, begun.receipt)
        headers = _headers(begun) | {"Location": f"{PATH}/{begun.id}"}
        return Response(None, status_code=201, headers=headers)

    @head("/{upload_id:str}", opt={"scope": "upload", "problems": (412,)}, operation_id="uploadState")
    async def state(self, request: Asking, upload_id: FromPath[str]) -> Response[None]:
        """Say how many bytes are kept; once it is in, which document it became."""
        begun = await house_of(request).uploads.get(request.user, upload_id)
        headers = _headers(begun) | {"Upload-Length": str(begun.length), "Cache-Control": "no-store"}
        if begun.said:
            headers["Upload-Metadata"] = begun.said
        return Response(None, status_code=200, headers=headers)

    @patch(
        "/{upload_id:str}",
        opt={"scope": "upload", "problems": (409, 412, 413, 415, 422, 423, 460, 507)},
        operation_id="sendUpload",
        status_code=204,
        operation_class=described(takes={TYPE: RAW}),
        request_max_body_size=None,  # the upload's own length is the measure
    )
    async def send(self, request: Asking, upload_id: FromPath[str]) -> Response[None]:
        """Send bytes from `Upload-Offset` on; with the last ones the document is in."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != TYPE:
            detail, hint = "Bytes of an upload come under their own type.", f"send Content-Type: {TYPE}"
            return _bare(reply(problem("unsupported_type", detail, hint=hint, request_id=request_id(request))))
        offset = _number(request, "Upload-Offset")
        checksum = _Checksum.of(request.headers.get("upload-checksum", ""))
        uploads = house_of(request).uploads
        begun = await uploads.append(request.user, upload_id, offset, _blocks(request), checksum)
        if isinstance(begun, Refused):
            return _bare(refused(request, begun.refusal, begun.receipt))
        return Response(None, status_code=204, headers=_headers(begun))

    @delete("/{upload_id:str}", opt={"scope": "upload", "problems": (412, 423)}, operation_id="dropUpload")
    async def drop(self, request: Asking, upload_id: FromPath[str]) -> None:
        """Give an upload up: its key and its bytes are gone. A document that it became stays."""
        await house_of(request).uploads.drop(request.user, upload_id)


class _Checksum:
    """The digest that one call's bytes must have."""

    def __init__(self, algorithm: str, wanted: bytes) -> None:
        self._made = hashlib.new(algorithm, usedforsecurity=False)
        self._wanted = wanted

    @classmethod
    def of(cls, header: str) -> "_Checksum | None":
        """Read `sha1 <base64>`. Raises `InvalidRequestError`."""
        if not header:
            return None
        algorithm, _, digest = header.partition(" ")
        if algorithm not in DIGESTS:
            raise InvalidRequestError(
                "this checksum is not computed here", param="Upload-Checksum", hint=f"one of {', '.join(DIGESTS)}"
            )
        return cls(algorithm, _plain(digest.strip(), "Upload-Checksum"))

    def update(self, data: bytes, /) -> None:
        """Take bytes in."""
        self._made.update(data)

    def holds(self) -> bool:
        """Whether the bytes were those."""
        return hmac.compare_digest(self._made.digest(), self._wanted)


async def _blocks(request: Asking) -> AsyncIterator[bytes]:
    """Give the body until it ends or the line breaks: what came until then is kept."""
    try:
        async for block in request.stream():
            yield block
    except InternalServerException:
        return


def _bare(problem: Response[Any]) -> Response[None]:
    """Give a problem where the handler's good reply has no body; the framework reads that from its signature."""
    return cast("Response[None]", problem)


def _headers(begun: Begun) -> dict[str, str]:
    expires = format_datetime(datetime.fromtimestamp(begun.expires, UTC), usegmt=True)
    headers = {"Upload-Offset": str(begun.received), "Upload-Expires": expires}
    if begun.document:
        headers |= {"Domicile-Document": begun.document, "Domicile-Receipt": begun.receipt}
    return headers


def _number(request: Asking, header: str) -> int:
    text = request.headers.get(header, "")
    if not _NUMBER.fullmatch(text):
        raise InvalidRequestError(f"{header} is no number of bytes", param=header, hint="send it as decimal digits")
    return int(text)


def _metadata(header: str) -> dict[str, str]:
    """Read `key base64,key base64`. Raises `InvalidRequestError`, which names keys and never values."""
    if len(header) > LONGEST:
        raise TooLargeError("Upload-Metadata is too long", limit_bytes=LONGEST, hint="declare less")
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, value = pair.partition(" ")
        if key not in KNOWN or key in found:
            hint = f"each once, of {', '.join(sorted(KNOWN))}"
            raise InvalidRequestError("Upload-Metadata has a key that is not known here, or twice", hint=hint)
        try:
            found[key] = _plain(value.strip(), "Upload-Metadata").decode()
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"`{key}` is no UTF-8", param="Upload-Metadata") from error
    return found


def _plain(text: str, header: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("a value is no Base64", param=header, hint="encode it by RFC 4648, 4") from error


def _claim(said: Mapping[str, str]) -> Claim:
    personal, level = said.get("personal", "true").lower(), said.get("classification", "1")
    if personal not in ("true", "false"):
        raise InvalidRequestError("`personal` is true or false", param="Upload-Metadata")
    if not re.fullmatch(r"[0-9]", level):
        raise InvalidRequestError("`classification` is a number from 0 to 4", param="Upload-Metadata")
    return Claim(
        name=said.get("name") or said.get("filename", ""),
        jurisdictions=_codes(said.get("jurisdiction", "")),
        collection=said.get("collection", "default"),
        residency=_codes(said["residency"]) if "residency" in said else None,
        personal=personal == "true",
        categories=_codes(said.get("categories", "")),
        classification=int(level),
        groups=_codes(said.get("groups", "")),
        folder=said.get("folder", ""),
        media_type=said.get("filetype", ""),
    )


def _codes(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.replace("+", ",").split(",") if part.strip())
