"""Pages: how every page and fragment of the portal leaves: template, headers, problems as people read them.

Rules kept here: one Content-Security-Policy without inline script or style on every response, problems included;
nothing with content is stored by a browser or a proxy; all text is escaped by the template engine, and no text of a
Document or an Answer is ever rendered as markup.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from residency.decision import Principal, Refusal
from residency.errors import DomicileError
from service.api import replies
from service.api.replies import Asking, house_of
from service.errors import CredentialError
from service.problems import of_error, of_refusal, problem
from service.rendering.tables import zone_name

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), gyroscope=(), microphone=(), payment=(), usb=()",
}
"""Headers of every response of the portal, beside its CSP."""
FRAGMENT: Final = "domicile-fragment"
"""Header by which our own modules ask for a part of a page."""

environment: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _size(count: int) -> str:
    for unit, step in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count >= step:
            return f"{count / step:.1f}".removesuffix(".0") + f"\N{NO-BREAK SPACE}{unit}"
    return f"{count}\N{NO-BREAK SPACE}bytes"


def _when(moment: float | str) -> str:
    at = datetime.fromtimestamp(moment, UTC) if isinstance(moment, float) else datetime.fromisoformat(moment)
    return f"{at:%d %b %Y, %H:%M} UTC"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


environment.filters |= {"size": _size, "when": _when, "zone": zone_name, "sentence": _sentence}


def headers(*, secure: bool, csp: str = CSP) -> dict[str, str]:
    """Give the headers of a response; behind TLS also the demand to stay there (RFC 6797)."""
    given = {**SAFE, "Content-Security-Policy": csp}
    return given | ({"Strict-Transport-Security": "max-age=31536000"} if secure else {})


def is_fragment(request: Asking) -> bool:
    """Say whether one of our modules asks for a part of a page."""
    return request.headers.get(FRAGMENT) == "true"


def page(request: Asking, template: str, /, *, status: int = 200, csp: str = CSP, **facts: Any) -> Response[str]:
    """Draw a template and send it; every page knows who is signed in and carries the session's own token."""
    house = house_of(request)
    principal: Principal | None = request.scope.get("user")
    text = environment.get_template(template).render(
        principal=principal,
        scopes=principal.scopes if principal else frozenset(),
        csrf=house.accounts.csrf(principal) if principal else "",
        here=request.url.path,
        **facts,
    )
    sent = headers(secure=house.settings.server.secure_cookies, csp=csp) | {"Cache-Control": "no-store"}
    return Response(text, status_code=status, media_type="text/html", headers=sent)


def go(request: Asking, path: str) -> Redirect:
    """Send the browser to one of our own paths by GET."""
    sent = headers(secure=house_of(request).settings.server.secure_cookies) | {"Cache-Control": "no-store"}
    return Redirect(path, status_code=303, headers=sent)


def attachment(request: Asking, data: bytes, media_type: str, name: str) -> Response[bytes]:
    """Send a file to keep; `name` is one of ours, plain ASCII."""
    sent = headers(secure=house_of(request).settings.server.secure_cookies) | {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return Response(data, media_type=media_type, headers=sent)


def own_path(path: str) -> str:
    """Give `path` if it leads to a page of ours, else the documents: nobody is sent elsewhere after signing in."""
    parts = urlsplit(path)
    first = parts.path.split("/")[1] if parts.path.startswith("/") else ""
    plain = path.isascii() and path.isprintable() and "\\" not in path and not path.startswith("//")
    known = first in {"documents", "ask", "reports", "receipts"}
    return path if plain and known and not parts.scheme and not parts.netloc else "/documents"


# --- problems ---------------------------------------------------------------------------------------------------------


def told(body: Mapping[str, Any]) -> dict[str, Any]:
    """Give a problem's members with every one that a template may ask for."""
    nothing = {"reasons": [], "why_not": {}, "permitted": [], "remedy": "", "hint": "", "receipt": "", "request_id": ""}
    return nothing | dict(body)


def show_problem(request: Asking, body: Mapping[str, Any], status: int) -> Response[str]:
    """Show cause and next step, as a page or as a fragment of one."""
    template = "_problem.html" if is_fragment(request) else "problem.html"
    return page(request, template, status=status, problem=told(body))


def show_refusal(request: Asking, refusal: Refusal, receipt: str) -> Response[str]:
    """Show a Refusal with its clauses, the law they rest on, and the nearest remedy."""
    made = of_refusal(refusal, receipt=receipt)
    return show_problem(request, made.body, made.status)


def on_error(request: Asking, error: DomicileError) -> Response[Any]:
    """Show an error that was raised on purpose; who is not signed in goes to sign in, and back afterwards."""
    if isinstance(error, CredentialError):
        body = problem(error.code, "Your session has ended.", hint="sign in again, then repeat what you did").body
        if is_fragment(request):
            return show_problem(request, body, 401)
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.method == "GET" and own_path(wanted) == wanted and wanted != "/documents":
            return go(request, f"/sign-in?next={quote(wanted, safe='')}")
        return go(request, "/sign-in")
    made = of_error(error)
    return show_problem(request, made.body, made.status)


def on_http(request: Asking, error: HTTPException) -> Response[Any]:
    """Show what the framework, or a guard of the portal, refused."""
    body = replies.on_http(request, error).content
    if error.status_code == 403:
        body = body | {"title": "This did not come from a page of ours", "detail": error.detail}
        body["hint"] = "open the page again and repeat it there"
    return show_problem(request, body, error.status_code)


def on_unknown(request: Asking, error: HTTPException) -> Response[Any]:
    """Answer for the whole app what no route took: a page for browsers, a problem for programs."""
    programs = request.url.path.startswith(("/v1", "/static", "/portal"))
    if programs or "text/html" not in request.headers.get("accept", ""):
        return replies.on_http(request, error)
    return on_http(request, error)


def on_crash(request: Asking, error: Exception) -> Response[Any]:
    """Show that something broke, without what; the log has type and place."""
    body = replies.on_crash(request, error).content | {"hint": "try again; if it stays, tell your operator the number"}
    return show_problem(request, body, 500)
