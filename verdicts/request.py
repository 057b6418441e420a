"""What is asked of a line at its control address, and what it answers; JSON, schema version 1.

A client's DEALER socket sends one frame, a request. The line's ROUTER socket answers with a reply, and
after it come as many frames as ``Reply.frames`` says: verdicts or a health, as they were published.
"""

import json
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from verdicts.checks import (
    SCHEMA,
    MalformedMessage,
    check_count,
    check_flag,
    check_hexadecimal,
    check_name,
    check_number,
    check_object,
    check_one_of,
    check_schema,
    check_stamp,
    check_text,
    keys_of,
    malformed,
    read_json,
)

ReplyKind = Literal["page", "joined", "verdicts", "health", "rejoin", "replaced", "done", "refused"]

LARGEST: Final = 2**53 - 1
"""The largest ``seq`` there can be; as ``last`` of a replay it means all there are."""

SIGN_OF_LIFE_S: Final = 0.5
"""How often a subscriber that acknowledges says that it is there."""

ABSENT_AFTER_S: Final = 3.0
"""After so long without a sign of life, a subscriber counts as absent."""


LONGEST_PART: Final = 200
"""Characters of a part's name that comes with a trigger, or is expected."""
LONGEST_WINDOW_S: Final = 3600.0
"""For so long a line waits for a known bad part at the most."""

REPEATED: Final = "repeated"
"""``text`` of a reply with verdicts that may have been sent to this name before. They were not acknowledged
then, or the acknowledgement was lost with the daemon or with the machine's power."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Ask for one page of the journal: the verdicts ``first`` to ``last``, both included, of one boot."""

    id: int
    boot: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ReplaySince:
    """Ask for one page of the journal: what was captured at ``since`` or later and comes after a row.

    Attributes:
        id: chosen by the client, stands in the reply.
        since: ISO 8601, UTC, with microseconds.
        after: ``next`` of the page before; 0 for the first.
    """

    id: int
    since: str
    after: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Say that a named subscriber is there, and what it is done with.

    Attributes:
        id: chosen by the client, stands in the reply.
        name: the subscriber's; with CURVE that of its key.
        client: hexadecimal digits, random for each start of the subscriber; the line knows it by them after
            a new connection.
        join: whether to begin: verdicts follow, and whoever had the name before is told.
        row: of the journal; that verdict and all before it are acknowledged. None for a mere sign of life.
    """

    id: int
    name: str
    client: str
    join: bool
    row: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """Ask for the health of the line."""

    id: int


@dataclass(frozen=True, slots=True)
class Reload:
    """Ask the line to read its config again."""

    id: int


@dataclass(frozen=True, slots=True)
class Select:
    """Ask the line to judge by another of its products."""

    id: int
    product: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """Say that a part is in view of a camera whose ``trigger`` is by software; one verdict follows.

    Attributes:
        id: chosen by the client, stands in the reply.
        camera: name of the camera.
        part: the part's name, which its verdict carries; None without one.
    """

    id: int
    camera: str
    part: str | None


@dataclass(frozen=True, slots=True)
class Selftest:
    """Ask the line to judge its golden samples now."""

    id: int


@dataclass(frozen=True, slots=True)
class Expect:
    """Say that a known bad part is on its way; the answer comes when it was rejected, or was not.

    Attributes:
        id: chosen by the client, stands in the reply.
        camera: which will see it; None for any.
        part: the part's name, where the line knows names; None for any part.
        within_s: seconds until it must have been rejected.
        by: who sends it, for the journal; None where nobody says.
    """

    id: int
    camera: str | None
    part: str | None
    within_s: float
    by: str | None


@dataclass(frozen=True, slots=True)
class AcceptDrift:
    """Ask the line to take how the parts look now for normal.

    Attributes:
        id: chosen by the client, stands in the reply.
        camera: at which; None for all.
        by: who says so, for the journal; None where nobody does.
    """

    id: int
    camera: str | None
    by: str | None


Request = (
    Replay | ReplaySince | Acknowledge | Status | Reload | Select | Trigger | Selftest | Expect | AcceptDrift
)

_KINDS: Final[dict[str, type[Request]]] = {
    "replay": Replay,
    "replay_since": ReplaySince,
    "acknowledge": Acknowledge,
    "status": Status,
    "reload": Reload,
    "select": Select,
    "trigger": Trigger,
    "selftest": Selftest,
    "expect": Expect,
    "accept_drift": AcceptDrift,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Reply:
    """The first frame of an answer.

    Attributes:
        reply: "page" of a replay; "joined", and then "verdicts" and "health" without being asked for, to a
            subscriber that acknowledges; "rejoin" to one that the line does not know; "replaced" when another
            client has taken the name; "health" or "done" to a status or command; "refused" to anything.
        id: of the request; 0 where there was none.
        frames: how many frames follow.
        next: of a page: ``first`` or ``after`` of the next, None when it was the last.
        rows: of verdicts: their rows in the journal, one for each frame; None otherwise.
        kept_from: of a page: when the oldest verdict was captured that retention has left in the journal;
            None when it is empty.
        text: of done and refused: one line for people; of verdicts: ``REPEATED``, or None when none of them
            was sent to this name before.
    """

    reply: ReplyKind
    id: int = 0
    frames: int = 0
    next: int | None = None
    rows: tuple[int, ...] | None = None
    kept_from: str | None = None
    text: str | None = None
    schema: int = field(default=SCHEMA, kw_only=True)


def encode_request(request: Request) -> bytes:
    """Make the one frame of a request.

    Raises:
        MalformedMessage: a value has the wrong type or range.
    """
    _check_request(request)
    content = {key: getattr(request, key) for key in keys_of(type(request))}
    return _to_json({"schema": SCHEMA, "request": _NAMES[type(request)], **content}).encode()


def decode_request(frame: bytes) -> Request:
    """Read a request, believing nothing.

    Raises:
        MalformedMessage: for anything but a whole request of schema 1.
    """
    content = read_json(frame)
    if not isinstance(content, dict) or not isinstance(content.get("request"), str):
        raise MalformedMessage(f"request: expected one of {', '.join(_KINDS)}")
    kind = _KINDS.get(content["request"])
    if kind is None:
        raise MalformedMessage(
            f"request: found {content['request']!r:.80}, expected one of {', '.join(_KINDS)}"
        )
    values = check_object(content, ("schema", "request", *keys_of(kind)), "request")
    del values["schema"], values["request"]
    request = kind(**values)
    _check_request(request)
    return request


def encode_reply(reply: Reply) -> bytes:
    """Make the first frame of an answer.

    Raises:
        MalformedMessage: a value has the wrong type or range.
    """
    _check_reply(reply)
    return _to_json({key: getattr(reply, key) for key in _REPLY_KEYS}).encode()


def decode_reply(frames: list[bytes]) -> tuple[Reply, list[bytes]]:
    """Read an answer: its first frame, and those that belong to it.

    Raises:
        MalformedMessage: for anything but a whole reply of schema 1.
    """
    if not frames:
        raise MalformedMessage("reply: found no frame")
    values = check_object(read_json(frames[0]), _REPLY_KEYS, "reply")
    if isinstance(values["rows"], list):
        values["rows"] = tuple(values["rows"])
    reply = Reply(**values)
    _check_reply(reply)
    if reply.frames != len(frames) - 1:
        raise MalformedMessage(f"frames: found {len(frames) - 1}, expected {reply.frames}")
    return reply, frames[1:]


def _check_request(request: Request) -> None:
    check_count("id", request.id)
    match request:
        case Replay():
            check_hexadecimal("boot", request.boot)
            check_count("first", request.first, least=1)
            check_count("last", request.last, least=request.first)
        case ReplaySince():
            check_stamp("since", request.since)
            check_count("after", request.after)
        case Acknowledge():
            check_name("name", request.name)
            check_hexadecimal("client", request.client)
            check_flag("join", request.join)
            if request.row is not None:
                check_count("row", request.row)
        case Select():
            check_name("product", request.product)
        case Trigger():
            check_name("camera", request.camera)
            _check_part(request.part)
        case AcceptDrift():
            if request.camera is not None:
                check_name("camera", request.camera)
            check_text("by", request.by, optional=True)
        case Expect():
            _check_expect(request)


def _check_expect(request: Expect) -> None:
    if request.camera is not None:
        check_name("camera", request.camera)
    _check_part(request.part)
    check_text("by", request.by, optional=True)
    check_number("within_s", request.within_s)
    if not 0 < request.within_s <= LONGEST_WINDOW_S:
        raise malformed("within_s", request.within_s, f"seconds above 0, at most {LONGEST_WINDOW_S:g}")


def _check_part(part: object) -> None:
    check_text("part", part, optional=True)
    if isinstance(part, str) and not 1 <= len(part) <= LONGEST_PART:
        raise MalformedMessage(f"part: found {len(part)} characters, expected 1 to {LONGEST_PART}, or null")


def _check_reply(reply: Reply) -> None:
    check_schema(reply.schema)
    check_one_of("reply", reply.reply, _REPLIES)
    check_count("id", reply.id)
    check_count("frames", reply.frames)
    if reply.next is not None:
        check_count("next", reply.next)
    if reply.rows is not None:
        if not isinstance(reply.rows, tuple) or len(reply.rows) != reply.frames:
            raise malformed("rows", reply.rows, "a row for each frame")
        for row in reply.rows:
            check_count("rows", row)
    if reply.kept_from is not None:
        check_stamp("kept_from", reply.kept_from)
    check_text("text", reply.text, optional=True)


_REPLY_KEYS: Final = keys_of(Reply)
_REPLIES: Final = frozenset(get_args(ReplyKind))
_to_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
