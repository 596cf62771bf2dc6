"""Signing in and out: a one-time link or an API key is traded for a session cookie.

Rules kept here: a link is spent by a click on its button and never by opening it, since mail programs open links ahead;
the cookie is out of reach of script, and Lax, so that links in mails work; after signing in nobody is sent elsewhere.
"""

from typing import Any

from litestar import Controller, Response, get, post
from litestar.datastructures import Cookie
from litestar.params import FromQuery

from service.accounts import SESSION_SECONDS
from service.api.replies import Asking, house_of
from service.auth import cookie_name
from service.errors import CredentialError
from service.portal.forms import fields, one
from service.portal.pages import go, own_path, page

OPEN: dict[str, Any] = {"exclude_from_auth": True}


class LoginPages(Controller):
    """The door."""

    path = "/"

    @get("/", opt=OPEN, exclude_from_auth=True)
    async def home(self, request: Asking) -> Response[Any]:
        """Go to the documents, or to the door when no session is there."""
        name = cookie_name(secure=house_of(request).settings.server.secure_cookies)
        return go(request, "/documents" if request.cookies.get(name) else "/sign-in")

    @get("/sign-in", opt=OPEN, exclude_from_auth=True)
    async def door(
        self,
        request: Asking,
        token: FromQuery[str] = "",
        next: FromQuery[str] = "",  # noqa: A002 - the parameter's name
    ) -> Response[str]:
        """Show the button of a one-time link, or a field for an API key."""
        return page(request, "sign_in.html", token=token, next=own_path(next) if next else "", failed=False)

    @post("/sign-in", opt=OPEN, exclude_from_auth=True)
    async def sign_in(self, request: Asking) -> Response[Any]:
        """Trade the link or the key for a session; 401 and the same page when it is not good (any more)."""
        given = await fields(request)
        house = house_of(request)
        wanted = one(given, "next")
        try:
            session = await house.database.run(house.accounts.sign_in, one(given, "token").strip())
        except CredentialError:
            return page(request, "sign_in.html", status=401, token="", next=wanted, failed=True)
        response = go(request, own_path(wanted) if wanted else "/documents")
        response.set_cookie(self._cookie(request, session, SESSION_SECONDS))
        return response

    @post("/sign-out", opt={"scope": "any"})
    async def sign_out(self, request: Asking) -> Response[Any]:
        """End the session, here and in the database."""
        house = house_of(request)
        await house.database.run(house.accounts.revoke, request.user.id)
        response = go(request, "/sign-in")
        response.set_cookie(self._cookie(request, "", 0))
        return response

    def _cookie(self, request: Asking, value: str, age: int) -> Cookie:
        secure = house_of(request).settings.server.secure_cookies
        return Cookie(
            key=cookie_name(secure=secure),
            value=value,
            max_age=age,
            path="/",
            httponly=True,
            samesite="lax",  # strict would drop the session on every link from a mail
            secure=secure,
        )
