"""Templates of reports fetch nothing: no package, no foreign host, no file."""

import re
from pathlib import Path

import pytest

RENDERING = Path(__file__).parents[2] / "service" / "rendering"
TEMPLATES = sorted(
    [*RENDERING.rglob("*.typ"), *RENDERING.rglob("*.html"), *RENDERING.rglob("*.css"), *RENDERING.rglob("*.svg")]
)
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
HOST = re.compile(r"(?:https?:)?//[a-z0-9][\w.-]*\.[a-z]{2,}[^\s\"'<>)]*", re.IGNORECASE)


def faults(name, text):
    """What a template may not hold, by name."""
    found = [url for url in HOST.findall(text) if url != SVG_NAMESPACE]
    if name.endswith(".typ"):
        text = re.sub(r"(?m)^\s*//.*$", "", text)
        found += re.findall(r"#?(?:import|include)\b[^\n]*|\bread\([^\n]*|@(?:preview|local)[^\n]*", text)
        found += list(re.findall(r"\b(?:image|json|csv|yaml|toml|xml|cbor|plugin)\(\s*\"[^\n]*", text))
    else:
        found += re.findall(r"<script[^>]*|\sstyle=[^\n]*|\son\w+=[^\n]*|@import[^\n]*|url\([^\n]*", text)
    return found


def test_there_are_templates_to_read():
    assert {".typ", ".html", ".css"} <= {path.suffix for path in TEMPLATES}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_a_template_imports_no_package_and_names_no_foreign_host(path):
    assert faults(path.name, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("a.typ", '#import "@preview/tablex:0.0.8": tablex'),
        ("a.typ", '#include "other.typ"'),
        ("a.typ", '#let x = read("/etc/passwd")'),
        ("a.typ", '#image("logo.png")'),
        ("a.html", '<img src="https://cdn.example.com/a.png">'),
        ("a.html", '<link href="//fonts.example.com/x.css">'),
        ("a.html", "<script>1</script>"),
        ("a.html", '<p style="color:red">'),
        ("a.css", "@import 'x.css';"),
        ("a.css", "body { background: url(x.png) }"),
    ],
)
def test_what_is_planted_is_found(name, planted):
    assert faults(name, planted) != []
