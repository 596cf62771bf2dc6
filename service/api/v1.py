"""The `/v1` router: every handler below it declares a scope, and one guard reads it."""

from litestar import Router

from service.api.answers import AnswersController
from service.api.describing import spelled
from service.api.dify import DifyController
from service.api.documents import DocumentsController
from service.api.erasures import ErasuresController, HoldsController
from service.api.openai.chat import ChatController
from service.api.openai.embeddings import EmbeddingsController
from service.api.openai.files import FilesController
from service.api.openai.models import ModelsController
from service.api.openai.stores import StoreFilesController, StoresController
from service.api.pacing import paced
from service.api.policies import PoliciesController
from service.api.receipts import ReceiptsController
from service.api.reports import ReportsController
from service.api.reviews import ReviewsController
from service.api.search import SearchController
from service.api.sites import SitesController, ZonesController
from service.api.uploads import UploadsController
from service.api.violations import ViolationsController
from service.api.work import WorkController
from service.auth import scoped


def v1() -> Router:
    """Make the router."""
    return Router(
        "/v1",
        route_handlers=[
            DocumentsController,
            WorkController,
            UploadsController,
            ErasuresController,
            HoldsController,
            SearchController,
            AnswersController,
            ChatController,
            ModelsController,
            DifyController,
            EmbeddingsController,
            FilesController,
            StoresController,
            StoreFilesController,
            ReceiptsController,
            ReportsController,
            ReviewsController,
            ViolationsController,
            PoliciesController,
            SitesController,
            ZonesController,
        ],
        guards=[paced, scoped, spelled],
    )
