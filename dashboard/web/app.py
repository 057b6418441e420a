"""The web application: which address gives what."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from dashboard.access import Sessions
from dashboard.config import DashboardConfig
from dashboard.jobs import Jobs
from dashboard.labels import Labels
from dashboard.preview import Previews
from dashboard.watch import LineWatch
from dashboard.web import gallery, judging, lake, lines, overview, people, thresholds, work
from dashboard.web.answers import Refused
from dashboard.web.guard import Doorkeeper, Guard
from dashboard.web.live import MOST_PAGES, Live
from dashboard.web.site import Answer, Site, endpoint
from dashboard.web.static_files import StaticFiles
from dashboard.what_if import Windows

_LINE = "/api/lines/{line}"
_THREADS = 6


def application(
    config: DashboardConfig,
    watches: dict[str, LineWatch],
    labels: Labels | None,
    labels_trouble: str | None = None,
) -> ASGIApp:
    """Make the application.

    Args:
        config: of the dashboard.
        watches: the lines, not yet started; they are when the application starts.
        labels: None when the file cannot be opened.
        labels_trouble: why not.
    """
    secure = config.certificate is not None
    previews = {name: Previews(watch) for name, watch in watches.items()}
    doorkeeper = Doorkeeper(Sessions(), labels, needs_login=config.needs_login, secure=secure)
    site = Site(
        config=config,
        watches=watches,
        labels=labels,
        labels_trouble=labels_trouble,
        doorkeeper=doorkeeper,
        live=Live(watches, previews),
        previews=previews,
        windows={name: Windows() for name in watches},
        jobs=Jobs(config.state / "exports"),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        for watch in watches.values():
            watch.start()
        telling = asyncio.create_task(site.live.run())
        try:
            yield
        finally:
            telling.cancel()
            site.jobs.stop_all()

    app = Starlette(routes=_routes(), lifespan=lifespan)
    app.state.site = site
    app.state.static = StaticFiles()
    return Guard(app, hosts={"localhost", *config.hosts}, secure=secure)


def _routes() -> list[BaseRoute]:
    def get(path: str, answer: Answer, role: str = "look") -> Route:
        return Route(path, endpoint(role, answer), methods=["GET"])

    def post(path: str, answer: Answer, role: str, method: str = "POST") -> Route:
        return Route(path, endpoint(role, answer, changes=True), methods=[method])

    return [
        Route("/api/session", people.session, methods=["GET"]),
        Route("/api/login", people.login, methods=["POST"]),
        post("/api/logout", people.logout, "look"),
        post("/api/password", people.password, "look"),
        get("/api/users", people.users, "change"),
        post("/api/users", people.set_user, "change"),
        post("/api/users/{name}", people.remove_user, "change", "DELETE"),
        get("/api/changes", people.changes),
        get("/api/lake/{report}", lake.report),
        get("/api/lines", lines.lines),
        get(_LINE, lines.line),
        get(_LINE + "/strip", lines.strip),
        get(_LINE + "/cameras/{camera}/preview.jpg", lines.preview),
        get(_LINE + "/verdicts", gallery.verdicts),
        get(_LINE + "/filters", gallery.filters),
        get(_LINE + "/verdicts/{id}", gallery.verdict),
        get(_LINE + "/verdicts/{id}/frame.png", gallery.frame),
        get(_LINE + "/verdicts/{id}/overlay.jpg", gallery.overlay),
        get(_LINE + "/verdicts/{id}/thumbnail.jpg", gallery.thumbnail),
        post(_LINE + "/labels", judging.label, "judge"),
        post(_LINE + "/labels/undo", judging.undo, "judge"),
        get(_LINE + "/labels/summary", judging.summary),
        get(_LINE + "/review", judging.review, "judge"),
        get(_LINE + "/threshold", thresholds.show),
        get(_LINE + "/threshold/preview", thresholds.preview),
        post(_LINE + "/threshold", thresholds.change, "change"),
        post(_LINE + "/threshold/back", thresholds.back, "change"),
        post(_LINE + "/threshold/proposals/{id}", thresholds.close_proposal, "change"),
        get(_LINE + "/trends", overview.trend),
        get(_LINE + "/health", overview.health),
        post(_LINE + "/health/acknowledge", overview.acknowledge, "judge"),
        get(_LINE + "/products", overview.products),
        post(_LINE + "/products/select", overview.select, "change"),
        post(_LINE + "/exports", work.export, "look"),
        get(_LINE + "/commands", work.commands),
        post(_LINE + "/commands/{name}", work.run, "change"),
        get("/api/jobs", work.jobs),
        get("/api/jobs/{id}", work.job),
        post("/api/jobs/{id}", work.stop, "look", "DELETE"),
        get("/api/jobs/{id}/download", work.download),
        WebSocketRoute(_LINE + "/live", _live),
        Route("/api/{path:path}", _no_such),
        Route("/static/{name:path}", _static, methods=["GET"]),
        Route("/{path:path}", _page, methods=["GET"]),
    ]


async def _live(socket: WebSocket) -> None:
    site: Site = socket.app.state.site
    name = socket.path_params["line"]
    try:
        session = site.doorkeeper.require(socket, "look", changes=False)
    except Refused:
        await socket.accept()
        await socket.close(4401)
        return
    if name not in site.watches:
        await socket.accept()
        await socket.close(4404)
    elif site.live.pages >= MOST_PAGES:
        await socket.accept()
        await socket.close(1013)
    else:
        await site.live.serve(socket, name, session)


async def _no_such(request: Request) -> Response:
    return Refused(404, "no_such", what="address", name=request.url.path[:80]).answer()


async def _static(request: Request) -> Response:
    static: StaticFiles = request.app.state.static
    try:
        return static(request, request.path_params["name"])
    except Refused as refused:
        return refused.answer()


async def _page(request: Request) -> Response:
    """Give the page under each address that it may have; it looks at the address itself."""
    static: StaticFiles = request.app.state.static
    try:
        last = request.url.path.rpartition("/")[2]
        if "." in last:
            return static(request, "favicon.svg" if last == "favicon.ico" else last)
        return static(request, "index.html")
    except Refused as refused:
        return refused.answer()
