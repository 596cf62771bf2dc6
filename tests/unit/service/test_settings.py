"""Settings: file, then environment; an unknown key stops the start and names the nearest."""

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import Settings, describe, load, parse


def home(folder: Path, text: str) -> Path:
    (folder / "domicile.toml").write_text(text, encoding="utf-8")
    return folder


def test_without_a_file_every_setting_has_a_default(tmp_path: Path) -> None:
    found = load(tmp_path, environ={})
    assert found == Settings(home=str(tmp_path))
    assert found.path == tmp_path
    assert found.database_url == f"sqlite:///{tmp_path / 'domicile.sqlite'}"
    assert found.public_url == "http://127.0.0.1:8000"


def test_the_file_is_read(tmp_path: Path) -> None:
    found = load(home(tmp_path, '[here]\nzone = "FR"\n[server]\nport = 9000\n'), environ={})
    assert (found.here.zone, found.server.port) == ("FR", 9000)


def test_the_environment_wins_and_its_text_becomes_numbers_and_truths(tmp_path: Path) -> None:
    given = {
        "DOMICILE_SERVER__PORT": "9100",
        "DOMICILE_ANSWERS__DEADLINE_S": "2.5",
        "DOMICILE_EGRESS__REFUSE": "false",
        "DOMICILE_SERVER__PUBLIC_URL": "https://rag.example/",
        "PATH": "/bin",
        "DOMICILE_HOME": "/elsewhere",
    }
    found = load(home(tmp_path, "[server]\nport = 9000\n"), environ=given)
    assert (found.server.port, found.answers.deadline_s, found.egress.refuse) == (9100, 2.5, False)
    assert found.public_url == "https://rag.example"
    assert found.path == tmp_path


def test_the_ledgers_name_follows_the_public_address_until_it_is_given(tmp_path: Path) -> None:
    assert load(tmp_path, environ={}).ledger_name == "127.0.0.1:8000"
    moved = {"DOMICILE_SERVER__PUBLIC_URL": "https://rag.example/"}
    assert load(tmp_path, environ=moved).ledger_name == "rag.example"
    assert load(tmp_path, environ=moved | {"DOMICILE_SERVER__LEDGER_NAME": "log.example"}).ledger_name == "log.example"


def test_the_environment_may_name_the_home(tmp_path: Path) -> None:
    assert load(environ={"DOMICILE_HOME": str(tmp_path)}).path == tmp_path
    assert load(environ={}).home == ".domicile"


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        ("[server]\nprot = 1\n", "prot", "`port`"),
        ("[sever]\nport = 1\n", "sever", "`server`"),
        ("[ingestion]\nmax_byte = 1\n", "max_byte", "`max_bytes`"),
        ("[here]\nqqqq = 1\n", "qqqq", "known here:"),
    ],
)
def test_an_unknown_key_stops_the_start_and_names_the_nearest(
    tmp_path: Path, text: str, named: str, nearest: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(home(tmp_path, text), environ={})
    assert named in str(caught.value)
    assert nearest in caught.value.hint


def test_an_unknown_key_in_the_environment_stops_the_start_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, environ={"DOMICILE_SERVER__PROT": "1"})
    assert "`port`" in caught.value.hint


@pytest.mark.parametrize("text", ["[server]\nport = 'many'\n", "[answers]\nsentences = 1.5\n", "server = 3\n"])
def test_a_value_of_the_wrong_kind_stops_the_start_and_says_where(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"\$\.(server|answers)"):
        load(home(tmp_path, text), environ={})


def test_a_file_that_is_no_toml_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"domicile.toml is no TOML.*line 2") as caught:
        load(home(tmp_path, "[server]\nport = = 1\n"), environ={})
    assert caught.value.hint


def test_a_password_is_read_from_its_file_and_stands_nowhere_else(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss/word:%41\n", encoding="utf-8")
    found = parse({"database": {"url": "postgresql+psycopg://domicile@db/domicile", "password_file": str(secret)}})
    assert "p%40ss" in found.database_url
    from sqlalchemy.engine import make_url

    assert make_url(found.database_url).password == "p@ss/word:%41"
    assert "p@ss" not in repr(found)


def test_every_setting_is_described_with_its_default() -> None:
    rows = dict(describe())
    assert rows["server.port"] == 8000
    assert rows["ingestion.max_bytes"] == 100 * 1024 * 1024
    assert all("." in name for name in rows)
    assert not [name for name in rows if "password" in name and not name.endswith("_file")]
