"""Answers about who looks: sessions, users, and what they changed."""

import time
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response

from dashboard.access import (
    LOCAL,
    LONGEST_PASSWORD,
    ROLES,
    SHORTEST_PASSWORD,
    Session,
    is_password,
    secret_of,
)
from dashboard.labels import readable
from dashboard.web.answers import Query, Refused, answer, body, text
from dashboard.web.guard import COOKIE
from dashboard.web.site import Ask, Site, beside
from verdicts.checks import NAME

_NOBODY = "-"


async def session(request: Request) -> Response:
    """``GET /api/session``."""
    site: Site = request.app.state.site
    doorkeeper = site.doorkeeper
    known = doorkeeper.who(request)
    token = None
    if known is None and not doorkeeper.login:
        token, known = doorkeeper.sessions.begin(LOCAL)
    response = answer(_content(site, known))
    if token is not None:
        response.headers["Set-Cookie"] = doorkeeper.cookie(token)
    return response


async def login(request: Request) -> Response:
    """``POST /api/login``."""
    site: Site = request.app.state.site
    try:
        content = await body(request, "name", "password")
        name = text(content, "name", least=1, most=64)
        password = _password(content, "password")
        labels = site.need_labels()
        caller = request.client.host if request.client is not None else _NOBODY
        tried = (f"user {name}", f"from {caller}")
        wait_s = site.tries.wait_s(*tried)
        if wait_s > 0:
            raise Refused(429, "too_many", retry_s=round(wait_s, 1))
        user = labels.users().get(name)
        if not await beside(is_password, password, None if user is None else user["secret"]):
            site.tries.wrong(*tried)
            raise Refused(401, "wrong_password")
        site.tries.right(*tried)
        token, begun = site.doorkeeper.sessions.begin(name)
        response = answer(_content(site, begun))
        response.headers["Set-Cookie"] = site.doorkeeper.cookie(token)
        return response
    except Refused as refused:
        return refused.answer()


async def logout(ask: Ask) -> Response:
    """``POST /api/logout``."""
    await body(ask.request)
    ask.site.doorkeeper.sessions.end(ask.request.cookies.get(COOKIE))
    response = answer({})
    response.headers["Set-Cookie"] = ask.site.doorkeeper.cookie("", gone=True)
    return response


async def password(ask: Ask) -> Response:
    """``POST /api/password``."""
    content = await body(ask.request, "old", "new")
    labels = ask.site.need_labels()
    user = labels.users().get(ask.user)
    if user is None:
        raise Refused(404, "no_such", what="user", name=ask.user)
    wait_s = ask.site.tries.wait_s(f"user {ask.user}")
    if wait_s > 0:
        raise Refused(429, "too_many", retry_s=round(wait_s, 1))
    if not await beside(is_password, _password(content, "old"), user["secret"]):
        ask.site.tries.wrong(f"user {ask.user}")
        raise Refused(401, "wrong_password")
    secret = await beside(secret_of, _new_password(content, "new"))
    entry = {"name": ask.user, "role": user["role"], "secret": secret}
    await beside(labels.add, ask.user, "user", None, entry)
    ask.site.doorkeeper.sessions.end_all(ask.user)
    token, _ = ask.site.doorkeeper.sessions.begin(ask.user)
    response = answer({})
    response.headers["Set-Cookie"] = ask.site.doorkeeper.cookie(token)
    return response


async def users(ask: Ask) -> Response:
    """``GET /api/users``."""
    found = ask.site.need_labels().users()
    return answer(
        {
            "users": [
                {"name": name, "role": user["role"], "since_at": user["since_us"] / 1000}
                for name, user in sorted(found.items())
            ]
        }
    )


async def set_user(ask: Ask) -> Response:
    """``POST /api/users``."""
    content = await body(ask.request, "name", "role", "password")
    labels = ask.site.need_labels()
    name, role = text(content, "name", least=1, most=64), content.get("role")
    if not NAME.fullmatch(name) or name == LOCAL:
        raise Refused(400, "bad_body", key="name", found=name, expected='letters, digits, "_", "." or "-"')
    if role not in ROLES:
        raise Refused(400, "bad_body", key="role", found=f"{role!r:.80}", expected=", ".join(ROLES))
    known = labels.users().get(name)
    if known is None and not labels.users() and role != "change":
        # From now on everybody must log in: somebody has to be able to add the others.
        raise Refused(409, "last_change")
    if known is None or "password" in content:
        secret = await beside(secret_of, _new_password(content, "password"))
    else:
        secret = known["secret"]
    _refuse_last(labels.users(), name, role)
    await beside(labels.add, ask.user, "user", None, {"name": name, "role": role, "secret": secret})
    ask.site.doorkeeper.sessions.end_all(name)
    return await users(ask)


async def remove_user(ask: Ask) -> Response:
    """``DELETE /api/users/NAME``."""
    labels, name = ask.site.need_labels(), ask.request.path_params["name"]
    if name not in labels.users():
        raise Refused(404, "no_such", what="user", name=name[:80])
    _refuse_last(labels.users(), name, None)
    await beside(labels.add, ask.user, "user", None, {"name": name, "role": None})
    ask.site.doorkeeper.sessions.end_all(name)
    return await users(ask)


async def changes(ask: Ask) -> Response:
    """``GET /api/changes``."""
    query = Query(ask.query, "line", "limit", "before", "what")
    labels = ask.site.need_labels()
    before = query.whole("before", 1, 2**53, 2**53)
    entries = await beside(
        lambda: labels.entries(
            line=query.text("line"),
            what=query.texts("what"),
            before=before,
            limit=query.whole("limit", 1, 500, 100),
        )
    )
    altered = labels.damaged or await beside(labels.audit)
    return answer(
        {"changes": [readable(entry) for entry in entries], "intact": altered is None, "detail": altered}
    )


def _content(site: Site, known: Session | None) -> dict[str, object]:
    config, inside = site.config, known is not None
    kinds = dict.fromkeys(config.kinds)
    if site.labels is not None:
        kinds |= dict.fromkeys(sorted(site.labels.kinds()))
    return {
        "user": None if known is None else known.user,
        "role": None if known is None else site.doorkeeper.role(known),
        "csrf": None if known is None else known.csrf,
        "login": site.doorkeeper.login,
        "version": version("inspectd"),
        "now": time.time() * 1000,
        "lines": list(site.watches) if inside else [],
        "kinds": list(kinds) if inside else [],
        "shifts": list(config.shifts) if inside else [],
        "time_zone": None if config.time_zone is None else config.time_zone.key,
        "lake": inside and config.lake is not None,
    }


def _password(content: dict[str, object], key: str) -> str:
    found = content.get(key)
    if not isinstance(found, str) or len(found) > LONGEST_PASSWORD:
        raise Refused(400, "bad_body", key=key, found="no text", expected="a password")
    return found


def _new_password(content: dict[str, object], key: str) -> str:
    found = _password(content, key)
    if len(found) < SHORTEST_PASSWORD:
        raise Refused(
            400, "bad_body", key=key, found="a short one", expected=f"{SHORTEST_PASSWORD} characters or more"
        )
    return found


def _refuse_last(found: dict[str, dict[str, object]], name: str, role: str | None) -> None:
    others = [user for other, user in found.items() if other != name and user["role"] == "change"]
    if found and role != "change" and not others:
        raise Refused(409, "last_change")
