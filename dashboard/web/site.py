"""What all answers are made from."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dashboard.access import LOCAL, Session, Tries
from dashboard.config import DashboardConfig
from dashboard.database import DatabaseFailed
from dashboard.jobs import Jobs
from dashboard.kept_pictures import NoPicture, Thumbnails
from dashboard.labels import Labels
from dashboard.preview import Previews
from dashboard.watch import LineWatch
from dashboard.web.answers import Refused
from dashboard.web.guard import Doorkeeper
from dashboard.web.live import Live
from dashboard.what_if import Windows

Answer = Callable[["Ask"], Awaitable[Response]]


@dataclass
class Site:
    """The whole dashboard, as the web sees it.

    Attributes:
        labels: None when the file could not be opened; ``labels_trouble`` then says why.
    """

    config: DashboardConfig
    watches: dict[str, LineWatch]
    labels: Labels | None
    labels_trouble: str | None
    doorkeeper: Doorkeeper
    live: Live
    previews: dict[str, Previews]
    windows: dict[str, Windows]
    jobs: Jobs
    thumbnails: Thumbnails = field(default_factory=Thumbnails)
    tries: Tries = field(default_factory=Tries)

    def need_labels(self) -> Labels:
        """Give the label file.

        Raises:
            Refused: it could not be opened.
        """
        if self.labels is None:
            raise Refused(503, "not_available", self.labels_trouble)
        return self.labels


class Ask:
    """One request to the site."""

    def __init__(self, site: Site, request: Request, session: Session | None) -> None:
        self.site = site
        self.request = request
        self.session = session

    @property
    def user(self) -> str:
        """Who asks."""
        return LOCAL if self.session is None else self.session.user

    @property
    def watch(self) -> LineWatch:
        """The line that the address names.

        Raises:
            Refused: there is none of that name.
        """
        name = self.request.path_params["line"]
        watch = self.site.watches.get(name)
        if watch is None:
            raise Refused(404, "no_such", what="line", name=name[:80])
        return watch

    @property
    def query(self) -> dict[str, str]:
        """What stands after the ?."""
        return dict(self.request.query_params)


def endpoint(role: str, answer: Answer, *, changes: bool = False) -> Callable[[Request], Awaitable[Response]]:
    """Make a route of a function: let in who may, and turn what goes wrong into an answer."""

    async def handle(request: Request) -> Response:
        site: Site = request.app.state.site
        try:
            session = site.doorkeeper.require(request, role, changes=changes)
            return await answer(Ask(site, request, session))
        except Refused as refused:
            return refused.answer()
        except NoPicture as none:
            return Refused(
                410 if none.code in {"gone", "damaged", "outside"} else 404, none.code, none.detail
            ).answer()
        except DatabaseFailed as failed:
            return Refused(503, "not_available", str(failed)).answer()

    return handle


async def beside(work: Callable[..., Any], *arguments: object) -> Any:
    """Do work that reads files in a thread, so that others are answered meanwhile."""
    return await run_in_threadpool(work, *arguments)
