"""create_app: Litestar and nothing else; everything it serves comes from the House that `bootstrap` builds."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.util import find_spec

from litestar import Litestar, Router
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from residency.errors import DomicileError
from service.api.describing import Described
from service.api.health import livez, metrics, readyz
from service.api.pacing import told
from service.api.replies import on_crash, on_error, on_unread, quiet_logs
from service.api.uploads import resumable
from service.api.v1 import v1
from service.auth import BearerAuth
from service.bootstrap import domicile
from service.house import House
from service.portal import portal
from service.portal.pages import on_unknown
from service.settings import Settings, load

Build = Callable[[Settings], AbstractAsyncContextManager[House]]
Enter = Callable[[], AbstractAsyncContextManager[None]]


def create_app(settings: Settings | None = None, *, build: Build = domicile) -> Litestar:
    """Make the application; the House is built when it starts and closed when it stops."""
    chosen = settings or load()
    quiet_logs()
    assistants, extras = _assistants(chosen)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.house = await stack.enter_async_context(build(chosen))
            for enter in extras:
                await stack.enter_async_context(enter())
            yield

    return Litestar(
        [
            v1(),
            livez,
            readyz,
            metrics,
            *assistants,
            *portal(chosen),
        ],
        lifespan=[lifespan],
        middleware=[DefineMiddleware(BearerAuth)],
        before_send=[told, resumable],
        exception_handlers={
            DomicileError: on_error,
            HTTPException: on_unknown,
            RecursionError: on_unread,
            UnicodeDecodeError: on_unread,
            Exception: on_crash,
        },
        openapi_config=openapi(),
        plugins=[Described()],
        logging_config=None,
    )


def _assistants(
    settings: Settings,
) -> tuple[list[ASGIRouteHandler], list[Callable[[], AbstractAsyncContextManager[None]]]]:
    """Give the MCP route, and what must be entered for it, where the extra `[mcp]` is installed."""
    if find_spec("mcp") is None:
        return [], []
    from service.mcp import endpoint

    handler, enter = endpoint(settings)
    return [handler], [enter]


def openapi() -> OpenAPIConfig:
    """Describe the API, at `/api/openapi.json`."""
    return OpenAPIConfig(
        title="Domicile",
        version="1",
        use_handler_docstrings=True,
        description="Ask your own documents without a byte of them going where it may not go, and prove it.",
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"key": []}],
        openapi_router=Router("/api", route_handlers=[], opt={"exclude_from_auth": True}, include_in_schema=False),
        render_plugins=[JsonRenderPlugin()],  # the page that shows it is the portal's: /api/swagger
    )
