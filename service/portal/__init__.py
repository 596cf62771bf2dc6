"""The portal: pages for staff and for data-protection officers.

Pages are HTML from `templates/`, complete without script; three small modules in `static/` add upload progress, live
states and the panel beside an answer. Every handler declares a scope, every change proves that it came from our own
page (`guarding.py`), and every response carries the headers of `pages.py`.
"""

from typing import Any

from litestar import Router
from litestar.exceptions import HTTPException

from residency.errors import DomicileError
from service.auth import scoped
from service.portal.chat import ChatPages
from service.portal.documents import DocumentPages
from service.portal.guarding import same_site
from service.portal.login import LoginPages
from service.portal.pages import on_crash, on_error, on_http
from service.portal.reference import reference, statics
from service.portal.reports import ReportPages
from service.portal.reviews import ReviewPages
from service.portal.source import SourcePages
from service.portal.upkeep import UpkeepPages
from service.settings import Settings

FORM_BYTES = 64 * 1024
"""Largest body of a form; uploads are measured by the intake instead."""


def portal(settings: Settings) -> list[Any]:
    """Give the portal's routes, its static files and the page that shows the API."""
    return [
        Router(
            "/",
            route_handlers=[
                LoginPages,
                DocumentPages,
                UpkeepPages,
                ChatPages,
                SourcePages,
                ReviewPages,
                ReportPages,
                reference,
            ],
            guards=[scoped, same_site],
            exception_handlers={DomicileError: on_error, HTTPException: on_http, Exception: on_crash},
            request_max_body_size=FORM_BYTES,
            include_in_schema=False,
        ),
        statics(secure=settings.server.secure_cookies),
    ]
