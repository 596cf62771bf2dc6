"""Mail: EML by the standard library, MSG by olefile; who, to whom, when, the subject as heading, then the body.

Rules kept here: of alternatives the plain text is read, HTML only where there is none; remote pictures are not fetched;
attachments are named in the text and handed on. Formats: RFC 5322, RFC 2045 to 2049; [MS-OXMSG].
"""

import io
from collections.abc import Iterator
from email.errors import MessageError
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.policy import default
from typing import Final

import olefile
from compressed_rtf import decompress

from ingestion.readers import MAX_MEMBERS, Headings, Member, Reading, TextBuilder, UnreadableError, plain, rtf, tidy
from ingestion.readers.kinds import EML, MSG

SEALED: Final = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted"})
HEADERS: Final = ("From", "To", "Cc", "Date")
MAX_PARTS: Final = 5_000
MAX_HEADER: Final = 4_000
"""Code points kept of one header: a list of recipients may be endless."""
# [MS-OXPROPS]: the number of a property, without its type; text is stored as 001F (UTF-16) or 001E (8 bit)
SUBJECT, SENDER, ADDRESS, DISPLAY_TO, DISPLAY_CC, HEADER_TEXT = "0037", "0C1A", "0C1F", "0E04", "0E03", "007D"
BODY, HTML_BODY, RTF_BODY = "1000", "1013", "1009"
FILE_NAME, LONG_NAME, MIME, DISPLAY_NAME = "3704", "3707", "370E", "3001"
DATA, EMBEDDED = "37010102", "3701000D"


def read_eml(data: bytes) -> Reading:
    """Read a message. Raises `UnreadableError`: `broken_file`, `encrypted_file` (S/MIME, PGP/MIME), `bomb`."""
    message = _parsed(data)
    if message.get_content_type() in SEALED and message.get_param("smime-type") != "signed-data":
        raise UnreadableError("encrypted_file", "mail")
    builder, headings = TextBuilder(), Headings()
    head = {name: "; ".join(str(value) for value in message.get_all(name, [])) for name in HEADERS}
    _head(builder, headings, str(message.get("Subject") or ""), head)
    body = message.get_body(("plain", "html"))
    if body is not None:
        _body(builder, headings, _text(body), html=body.get_content_type() == "text/html")
    return _named(builder, EML, [member for member, _ in _attached(message)])


def unpack_eml(data: bytes) -> Iterator[tuple[Member, bytes]]:
    """Give the attachments; a message within the message is one file."""
    for member, part in _attached(_parsed(data)):
        yield member, _content(part)


def _parsed(data: bytes) -> EmailMessage:
    try:
        message = BytesParser(policy=default).parsebytes(data)
    except (MessageError, ValueError, LookupError, TypeError, AttributeError, IndexError, RecursionError):
        raise UnreadableError("broken_file", "mail") from None
    assert isinstance(message, EmailMessage)  # noqa: S101 - the policy makes these
    for count, _ in enumerate(message.walk()):
        if count >= MAX_PARTS:
            raise UnreadableError("bomb", "entries")
    return message


def _attached(message: EmailMessage) -> Iterator[tuple[Member, Message]]:
    body = message.get_body(("plain", "html"))
    found = 0
    waiting: list[Message] = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting += reversed([each for each in part.get_payload() if isinstance(each, Message)])
            continue
        kind, name = part.get_content_type(), part.get_filename()
        if part is body or (kind in {"text/plain", "text/html"} and not name and not _is_attachment(part)):
            continue
        if kind == EML:
            inner = part.get_payload(0) if part.is_multipart() else None
            title = inner.get("Subject") if isinstance(inner, Message) else None
            name = name or f"{tidy(str(title or 'message'))[:80]}.eml"
        found += 1
        if found > MAX_MEMBERS:
            raise UnreadableError("bomb", "entries")
        yield Member(tidy(name or f"attachment {found}")[:1_000], kind[:200]), part


def _is_attachment(part: Message) -> bool:
    return part.get_content_disposition() == "attachment"


def _content(part: Message) -> bytes:
    if part.is_multipart():
        inner = part.get_payload(0)
        return inner.as_bytes() if isinstance(inner, Message) else b""
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _text(part: Message) -> str:
    """Decode a part by its charset, else as any text is decoded."""
    content = _content(part)
    try:
        return content.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError, ValueError):
        return plain.decode(content) if content else ""


def _head(builder: TextBuilder, headings: Headings, subject: str, head: dict[str, str]) -> None:
    if title := tidy(subject):
        builder.put("heading", title, headings.enter(0, title))
    lines = [f"{name}: {tidy(value)[:MAX_HEADER]}" for name, value in head.items() if tidy(value)]
    builder.put("header", "\n".join(lines), headings.path)


def _body(builder: TextBuilder, headings: Headings, text: str, *, html: bool) -> None:
    if html:
        plain.html(builder, text, headings)
        return
    for paragraph in text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", " ").split("\n\n"):
        builder.put("text", paragraph.strip("\n"), headings.path)


def _named(builder: TextBuilder, media_type: str, members: list[Member]) -> Reading:
    """Name the attachments below the message."""
    if members:
        builder.put("note", "Attachments: " + ", ".join(member.name for member in members))
    return builder.reading(media_type)


def read_msg(data: bytes) -> Reading:
    """Read an Outlook message; one attached to it is read in its place, below it."""
    with _compound(data) as file:
        builder = TextBuilder()
        _message(builder, file, [])
        return _named(builder, MSG, [member for member, _ in _stored(file)])


def unpack_msg(data: bytes) -> Iterator[tuple[Member, bytes]]:
    """Give the attached files."""
    with _compound(data) as file:
        for member, at in _stored(file):
            yield member, _stream(file, [*at, f"__substg1.0_{DATA}"])


def _compound(data: bytes) -> olefile.OleFileIO:
    try:
        return olefile.OleFileIO(io.BytesIO(data))
    except (OSError, ValueError, IndexError, TypeError):
        raise UnreadableError("broken_file", "compound") from None


def _message(builder: TextBuilder, file: olefile.OleFileIO, at: list[str]) -> None:
    headings = Headings()
    sender = f"{_property(file, at, SENDER)} <{_property(file, at, ADDRESS)}>".replace(" <>", "")
    dated = BytesParser(policy=default).parsebytes(_property(file, at, HEADER_TEXT).encode(), headersonly=True)
    head = {
        "From": sender,
        "To": _property(file, at, DISPLAY_TO),
        "Cc": _property(file, at, DISPLAY_CC),
        "Date": str(dated.get("Date") or ""),
    }
    _head(builder, headings, _property(file, at, SUBJECT), head)
    if body := _property(file, at, BODY):
        _body(builder, headings, body, html=False)
    elif body := _property(file, at, HTML_BODY):
        _body(builder, headings, body, html=True)
    elif packed := _stream(file, [*at, f"__substg1.0_{RTF_BODY}0102"]):
        try:
            _body(builder, headings, rtf.text_of(decompress(packed)), html=False)
        except (ValueError, IndexError, TypeError):
            raise UnreadableError("broken_file", "mail") from None
    for inner in _attachments(file, at):
        below = [*inner, f"__substg1.0_{EMBEDDED}"]
        if file.exists(below) and len(below) <= 6:  # three messages deep
            _message(builder, file, below)


def _attachments(file: olefile.OleFileIO, at: list[str]) -> list[list[str]]:
    depth = len(at)
    names = {
        entry[depth]
        for entry in file.listdir()
        if len(entry) > depth + 1 and entry[:depth] == at and entry[depth].lower().startswith("__attach_version1.0_")
    }
    if len(names) > MAX_MEMBERS:
        raise UnreadableError("bomb", "entries")
    return [[*at, name] for name in sorted(names)]


def _stored(file: olefile.OleFileIO) -> Iterator[tuple[Member, list[str]]]:
    """Give the attached files of a message and of those attached to it, with the place where each is stored."""
    waiting: list[list[str]] = [[]]
    found = 0
    while waiting:
        message = waiting.pop()
        for at in _attachments(file, message):
            if file.exists([*at, f"__substg1.0_{EMBEDDED}"]):
                if len(at) < 6:
                    waiting.append([*at, f"__substg1.0_{EMBEDDED}"])
            elif file.exists([*at, f"__substg1.0_{DATA}"]):
                found += 1
                if found > MAX_MEMBERS:
                    raise UnreadableError("bomb", "entries")
                names = (_property(file, at, each) for each in (LONG_NAME, FILE_NAME, DISPLAY_NAME))
                name = next((tidy(each) for each in names if tidy(each)), f"attachment {found}")
                yield Member(name[:1_000], _property(file, at, MIME)[:200]), at


def _property(file: olefile.OleFileIO, at: list[str], number: str) -> str:
    """Give a text property: UTF-16, 8 bit or, for HTML, bytes of any encoding; "" where there is none."""
    if wide := _stream(file, [*at, f"__substg1.0_{number}001F"]):
        return wide.decode("utf-16-le", "replace").rstrip("\x00")
    narrow = _stream(file, [*at, f"__substg1.0_{number}001E"]) or _stream(file, [*at, f"__substg1.0_{number}0102"])
    return plain.decode(narrow.rstrip(b"\x00")) if narrow.strip(b"\x00") else ""


def _stream(file: olefile.OleFileIO, at: list[str]) -> bytes:
    try:
        return bytes(file.openstream(at).read()) if file.exists(at) else b""
    except (OSError, ValueError, IndexError):
        raise UnreadableError("broken_file", "compound") from None
