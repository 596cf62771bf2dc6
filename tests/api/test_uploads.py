"""tus 1.0.0 by its own text: in pieces, over breaks and restarts, ruled on before a byte, nothing left behind."""

import base64
import contextlib
import hashlib
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from ingestion.parts import PART, upload
from tests.doubles.homes import home, settings
from tests.doubles.serving import Served, serving, settled

pytestmark = pytest.mark.enable_socket

TUS = {"Tus-Resumable": "1.0.0"}
TYPE = "application/offset+octet-stream"
LINE = b"The ferry to the northern island leaves at 06:40 from pier four.\n"


def begin(client: httpx.Client, size: int, name: str = "ferry.txt", **said: str) -> httpx.Response:
    given = {"name": name, "jurisdiction": "DE"} | said
    pairs = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in given.items() if value)
    return client.post("/v1/uploads", headers=TUS | {"Upload-Length": str(size), "Upload-Metadata": pairs})


def send(client: httpx.Client, place: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
    own = TUS | {"Upload-Offset": str(offset), "Content-Type": TYPE} | headers
    return client.patch(place, headers=own, content=data)


def offset(client: httpx.Client, place: str) -> int:
    reply = client.head(place, headers=TUS)
    assert (reply.status_code, reply.headers["cache-control"]) == (200, "no-store")
    return int(reply.headers["upload-offset"])


def kept(served: Served) -> tuple[int, list[str]]:
    """Count rows of uploads, and name the files of their parts."""
    with served.house.database.reading() as connection:
        rows = connection.execute(sa.select(sa.func.count()).select_from(upload)).scalar_one()
    return rows, [path.name for path in served.settings.path.rglob("*.part.*")]


def expire(served: Served) -> int:
    with served.house.database.transaction() as connection:
        connection.execute(sa.update(upload).values(expires=0.0))
    return served.do(served.house.uploads.sweep())


def test_a_server_says_what_it_speaks_to_anybody(served: Served) -> None:
    reply = served.bare().options("/v1/uploads")
    assert reply.status_code == 204
    assert reply.headers["tus-version"] == "1.0.0"
    assert reply.headers["tus-extension"] == "creation,expiration,checksum,termination"
    assert int(reply.headers["tus-max-size"]) == served.house.uploads.max_bytes
    assert "sha1" in reply.headers["tus-checksum-algorithm"].split(",")


def test_a_body_in_three_pieces_becomes_the_document_of_those_bytes(client: httpx.Client, served: Served) -> None:
    body = LINE * 3
    begun = begin(client, len(body), "three.txt")
    place = begun.headers["location"]
    assert begun.status_code == 201
    assert begun.headers["tus-resumable"] == "1.0.0"
    assert begun.headers["upload-expires"].endswith("GMT")
    at = 0
    for size in (5, 100, len(body) - 105):
        reply = send(client, place, at, body[at : at + size])
        at += size
        assert (reply.status_code, reply.headers["upload-offset"]) == (204, str(at))
        assert reply.headers["tus-resumable"] == "1.0.0"
        assert offset(client, place) == at
    found = reply.headers["domicile-document"]
    assert settled(client, found)["state"] == "live"
    assert client.get(f"/v1/files/{found}/content").content == body
    assert client.get(f"/v1/receipts/{reply.headers['domicile-receipt']}").status_code == 200
    again = send(client, place, at, b"")  # the last answer was lost
    assert (again.status_code, again.headers["domicile-document"]) == (204, found)
    assert kept(served)[1] == []


def test_the_metadata_comes_back_as_it_was_sent_and_lies_sealed(client: httpx.Client, served: Served) -> None:
    reply = begin(client, 10, "Gehaltsliste-Kowalczyk.txt", collection="pay")
    told = client.head(reply.headers["location"], headers=TUS)
    assert told.headers["upload-metadata"] == reply.request.headers["upload-metadata"]
    assert told.headers["upload-length"] == "10"
    served.do(served.house.database.run(served.house.documents.collection, "acme", "pay"))
    raw = b"".join(path.read_bytes() for path in served.settings.path.rglob("*") if path.is_file())
    assert b"Kowalczyk" not in raw
    assert base64.b64encode(b"Gehaltsliste-Kowalczyk.txt") not in raw


def test_what_waits_between_two_calls_is_sealed_and_goes_with_the_upload(client: httpx.Client, served: Served) -> None:
    body = LINE * 2000
    place = begin(client, len(body) + 1).headers["location"]
    assert send(client, place, 0, body).status_code == 204
    (name,) = kept(served)[1]
    (file,) = served.settings.path.rglob(name)
    assert len(file.read_bytes()) > len(body)
    assert b"ferry" not in file.read_bytes()
    assert client.delete(place, headers=TUS).status_code == 204
    assert kept(served)[1] == []
    assert client.head(place, headers=TUS).status_code == 404


def test_a_part_that_is_swapped_for_another_never_becomes_a_document(client: httpx.Client, served: Served) -> None:
    body = LINE * 4
    place = begin(client, len(body), "swapped.txt").headers["location"]
    send(client, place, 0, body[:50])
    send(client, place, 50, body[50:100])
    first, second = (path for name in kept(served)[1] for path in served.settings.path.rglob(name))
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    assert send(client, place, 100, body[100:]).status_code >= 500
    assert offset(client, place) == 100
    assert client.delete(place, headers=TUS).status_code == 204


def test_a_refused_body_is_refused_before_a_byte_and_leaves_only_its_receipt(served: Served) -> None:
    before = kept(served)
    reply = begin(served.client(), 10, residency="IS", jurisdiction="IS")
    assert reply.status_code == 403, reply.text
    assert reply.json()["code"] == "residency_refused"
    assert reply.json()["receipt"]
    assert reply.headers["tus-resumable"] == "1.0.0"
    assert kept(served) == before


def test_a_damaged_line_keeps_nothing_of_its_call(client: httpx.Client) -> None:
    place = begin(client, 2 * len(LINE), "checked.txt").headers["location"]
    sha1 = base64.b64encode(hashlib.sha1(LINE, usedforsecurity=False).digest()).decode()
    sha256 = base64.b64encode(hashlib.sha256(LINE).digest()).decode()
    bad = send(client, place, 0, LINE[:-1] + b"?", **{"Upload-Checksum": f"sha1 {sha1}"})
    assert (bad.status_code, bad.json()["code"], offset(client, place)) == (460, "checksum_mismatch", 0)
    assert send(client, place, 0, LINE, **{"Upload-Checksum": f"sha1 {sha1}"}).status_code == 204
    last = send(client, place, len(LINE), LINE, **{"Upload-Checksum": f"sha256 {sha256}"})
    assert last.headers["domicile-document"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Offset": "7"}, 409),
        ({"Upload-Offset": "-1"}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Upload-Checksum": "md5 AAAA"}, 400),
    ],
)
def test_a_call_that_does_not_keep_to_the_protocol_changes_nothing(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    place = begin(client, 10).headers["location"]
    reply = send(client, place, 0, b"0123", **headers)
    assert reply.status_code == status, reply.text
    assert reply.headers["tus-resumable"] == "1.0.0"
    assert ("tus-version" in reply.headers) is (status == 412)
    assert offset(client, place) == 0


def test_what_cannot_be_taken_in_is_said_at_the_beginning(client: httpx.Client, served: Served) -> None:
    most = served.house.uploads.max_bytes
    assert begin(client, most + 1).json()["code"] == "too_large"
    assert begin(client, 0).json()["code"] == "empty_file"
    assert begin(client, 5, "a/b.txt").json()["code"] == "invalid_request"
    assert begin(client, 5, colour="red").json()["code"] == "invalid_request"
    assert begin(client, 5, jurisdiction="").json()["code"] == "jurisdiction_missing"
    deferred = client.post("/v1/uploads", headers=TUS | {"Upload-Defer-Length": "1"})
    assert deferred.json()["param"] == "Upload-Defer-Length"
    place = begin(client, 5).headers["location"]
    assert send(client, place, 0, b"123456").status_code == 413
    assert offset(client, place) == 0


def test_an_upload_is_seen_only_by_who_began_it(client: httpx.Client, served: Served) -> None:
    place = begin(client, 5).headers["location"]
    for other in (served.client(tenant="other"), served.client("upload")):
        assert other.head(place, headers=TUS).status_code == 404
        assert send(other, place, 0, b"12345").status_code == 404
        assert other.delete(place, headers=TUS).status_code == 404
    assert offset(client, place) == 0


def broken(served: Served, client: httpx.Client, place: str, announced: int, sent: bytes) -> socket.socket:
    """Send a PATCH whose line is still open, with less than it announced."""
    line = socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])))
    head = {**TUS, "Host": "localhost", "Authorization": client.headers["authorization"], "Upload-Offset": "0"}
    head |= {"Content-Type": TYPE, "Content-Length": str(announced)}
    text = f"PATCH {place} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in head.items()) + "\r\n"
    line.sendall(text.encode() + sent)
    return line


def until(client: httpx.Client, place: str, wanted: int) -> None:
    for _ in range(400):
        if offset(client, place) == wanted:
            return
    raise AssertionError(f"the offset did not come to {wanted}")


def test_what_came_before_a_broken_line_is_kept_and_two_do_not_send_at_once(
    client: httpx.Client, served: Served
) -> None:
    body = LINE * (PART // len(LINE) + 2000)
    place = begin(client, len(body), "broken.txt").headers["location"]
    sent = PART + 1000
    with contextlib.closing(broken(served, client, place, len(body), body[:sent])):
        until(client, place, PART)  # a whole part counts while the call still runs
        busy = send(client, place, PART, body[PART:])
        assert (busy.status_code, busy.json()["code"]) == (423, "upload_locked")
        assert client.delete(place, headers=TUS).status_code == 423
    until(client, place, sent)
    last = send(client, place, sent, body[sent:])
    assert last.status_code == 204, last.text
    assert client.get(f"/v1/files/{last.headers['domicile-document']}/content").content == body


def test_an_expired_upload_leaves_no_file_no_key_and_no_row(client: httpx.Client, served: Served) -> None:
    from residency.keytables import dek_wrapped

    def keys() -> int:
        with served.house.database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one())

    expire(served)
    before = keys()
    place = begin(client, 100).headers["location"]
    send(client, place, 0, LINE[:40])
    assert (kept(served)[0], len(kept(served)[1]), keys()) == (1, 1, before + 1)
    assert expire(served) == 1
    assert (kept(served), keys()) == ((0, []), before)
    assert send(client, place, 40, LINE[:60]).status_code == 404


def test_an_upload_goes_on_after_a_restart(tmp_path: Path, onnx_model: Path) -> None:
    folder = settings(home(tmp_path / "home", onnx_model))
    body = LINE * 5
    with serving(folder) as first:
        key: dict[str, Any] = {"authorization": first.client().headers["authorization"]}
        place = begin(first.client(), len(body)).headers["location"]
        assert send(first.client(), place, 0, body[:77]).status_code == 204
    with serving(folder) as second:
        client = second.bare(**key)
        assert offset(client, place) == 77
        last = send(client, place, 77, body[77:])
        assert client.get(f"/v1/files/{last.headers['domicile-document']}/content").content == body
