"""The page that shows the API, and the static files: all from this package, none from another host."""

from pathlib import Path
from typing import Any

from litestar import Response, Router, get
from litestar.static_files import create_static_files_router

from service.api.replies import Asking
from service.portal.pages import CSP, headers, page

STATIC = Path(__file__).parent / "static"
REFERENCE_CSP = CSP.replace("img-src 'self'", "img-src 'self' data:")
"""As everywhere, but the vendored style sheet draws its arrows from data: addresses."""


@get("/api/swagger", opt={"exclude_from_auth": True}, exclude_from_auth=True)
async def reference(request: Asking) -> Response[str]:
    """Show the API's description with the vendored Swagger UI."""
    return page(request, "reference.html", csp=REFERENCE_CSP)


def statics(*, secure: bool) -> Router:
    """Serve our scripts, styles and icons, and what is vendored; browsers ask again each time, at no cost in bytes."""

    def finish(response: Response[Any]) -> Response[Any]:
        for name, value in (headers(secure=secure) | {"Cache-Control": "no-cache"}).items():
            response.headers[name] = value
        return response

    return create_static_files_router(
        "/static", directories=[STATIC], opt={"exclude_from_auth": True}, after_request=finish, include_in_schema=False
    )
