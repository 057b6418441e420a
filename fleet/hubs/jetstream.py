"""A hub in NATS JetStream: one stream, one subject for each line, ``boot:seq`` as the id of a message."""

import asyncio
import json
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final, TypeVar

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    Header,
    PubAck,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from nats.js.errors import Error as JetStreamError

from fleet.config import NatsConfig
from fleet.hubs import Entry, HubFailed, Stored
from fleet.hubs.tls import tls_context
from foundation.errors import InputError, refused_by_system
from foundation.tls import reason

PREFIX: Final = "inspectd.verdicts"
_BATCH, _BATCH_SEQUENCE, _BATCH_COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"
PLANT, PRODUCT = "Inspectd-Plant", "Inspectd-Product"
_OLDEST: Final = (2, 12)
"""Before it a window of messages cannot be stored as a whole."""
_DUPLICATE_IN_BATCH: Final = 10201
_INACTIVE_S: Final = 60.0
_NOT_IN_TIME: Final = "no answer in time"
_Result = TypeVar("_Result")


class JetStream:
    """The connection, in an event loop and thread of its own; see the seam ``Hub``.

    The client's own reconnecting is off: it would send what it still holds after what failed, and a line's
    verdicts would come out of order. A connection that fails once is closed, and ``connect`` makes another.
    """

    def __init__(self, config: NatsConfig, password: str | None) -> None:
        """Prepare; ``connect`` connects.

        Args:
            config: the section.
            password: of its user; None without one.

        Raises:
            InputError: a file that the config names cannot be read.
        """
        self.name = ", ".join(_without_user(server) for server in config.servers)
        self._config = config
        self._options = _options(config, password)
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._reader: JetStreamContext.PullSubscription | None = None
        self._read = (0, 0)  # position and the reader's own count of the last message
        self._created = ""
        self._lost = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._one_connects = asyncio.Lock()
        self._closed = False
        self._complaint: Exception | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="hub", daemon=True)
        self._thread.start()

    def connect(self) -> None:
        """See the seam."""
        self._run(self._connect(), 3 * self._config.timeout_s)

    def last(self, plant: str, line: str) -> tuple[str, int] | None:
        """See the seam."""
        return self._run(self._last(subject_of(plant, line)))

    def put(self, entries: Sequence[Entry]) -> None:
        """See the seam."""
        self._run(self._put(entries))

    def identity(self) -> str:
        """See the seam."""
        return f"nats {self._config.stream} {self._created}"

    def after(self, position: int, limit: int, wait_s: float) -> list[Stored]:
        """See the seam."""
        return self._run(self._after(position, limit, wait_s), wait_s + self._config.timeout_s)

    def may_forget(self, position: int) -> None:
        """Do nothing: the stream forgets by itself what is older than ``keep_days``."""

    def close(self) -> None:
        """See the seam."""
        if self._closed:
            return
        self._closed = True
        with suppress(NotInTime, Exception):  # it is gone in any case
            asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(2)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _Result], timeout_s: float | None = None) -> _Result:
        """Do something in the loop; whatever fails at the other end is a ``HubFailed``."""
        waiting: Future[_Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result(timeout_s or 2 * self._config.timeout_s)
        except (NotInTime, TimeoutError, nats.errors.TimeoutError) as error:
            waiting.cancel()
            self._drop()
            # Of what its user may not do a server says so, and answers nothing.
            said = _NOT_IN_TIME if self._complaint is None else _said(self._complaint)
            raise HubFailed(f"{self.name}: {said}") from error
        except (nats.errors.Error, JetStreamError, OSError, EOFError) as error:
            if not isinstance(error, APIError):  # that one is an answer
                self._drop()
            raise HubFailed(f"{self.name}: {_said(error)}") from error

    def _drop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop)

    async def _leave(self) -> None:
        client, self._client, self._stream, self._reader = self._client, None, None, None
        if client is not None and not client.is_closed:
            await client.close()

    async def _connect(self) -> None:
        async with self._one_connects:
            if self._client is not None and self._client.is_connected:
                return
            await self._leave()
            lost = self._lost = asyncio.Event()
            self._complaint = None

            async def note_lost() -> None:
                lost.set()

            async def note_error(error: Exception) -> None:
                self._complaint = error

            try:
                client = await nats.connect(
                    list(self._config.servers), closed_cb=note_lost, error_cb=note_error, **self._options
                )
            except (nats.errors.NoServersError, nats.errors.TimeoutError) as error:
                raise self._complaint or error from error
            try:
                self._refuse_old(client)
                stream = client.jetstream(timeout=self._config.timeout_s)
                info = await self._made(stream)
                await asyncio.to_thread(self._refuse_unsynced, info)
            except BaseException:
                await client.close()
                raise
            self._created = str(info.created)
            self._client, self._stream = client, stream

    def _refuse_old(self, client: Client) -> None:
        version = client.connected_server_version
        if (version.major, version.minor) < _OLDEST:
            raise InputError(
                f"{self.name}: found NATS {version}, expected 2.12 or later: earlier ones cannot store "
                "several messages as a whole"
            )

    async def _made(self, stream: JetStreamContext) -> StreamInfo:
        """Give the stream, made if it was not there.

        Raises:
            InputError: there is another one under its name, which would lose verdicts.
        """
        wanted = self._wanted()
        try:
            info = await stream.stream_info(self._config.stream)
        except NotFoundError:
            return await stream.add_stream(wanted)
        found = info.config
        for key, expected in (
            ("subjects", wanted.subjects),
            ("retention", wanted.retention),
            ("storage", wanted.storage),
            ("discard", wanted.discard),
            ("no_ack", False),
            ("allow_atomic", True),
        ):
            value = getattr(found, key)
            if value != expected:
                raise InputError(
                    f"{self.name}: stream {self._config.stream}: {key}: found {_plain(value)}, "
                    f"expected {_plain(expected)}; name another stream, or remove this one"
                )
        return info

    def _wanted(self) -> StreamConfig:
        return StreamConfig(
            name=self._config.stream,
            description="verdicts of all lines, from inspectd-fleet forward",
            subjects=[f"{PREFIX}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            # The oldest must not make room before the lake has it: what is refused stays in the journals.
            discard=DiscardPolicy.NEW,
            max_bytes=int(self._config.max_gb * 1e9),
            max_age=self._config.keep_days * 86_400,
            num_replicas=self._config.replicas,
            allow_atomic=True,
            duplicate_window=min(self._config.duplicates_s, self._config.keep_days * 86_400),
        )

    def _refuse_unsynced(self, info: StreamInfo) -> None:
        """Ask the server's monitoring port whether a power cut loses what it has acknowledged.

        Raises:
            InputError: it does: neither does it sync each write, nor are there three replicas.
            OSError: the port does not answer.
        """
        if self._config.monitoring is None or (info.config.num_replicas or 1) >= 3:
            return
        address = f"{self._config.monitoring.rstrip('/')}/jsz?config=1"
        with urllib.request.urlopen(address, timeout=self._config.timeout_s) as answer:
            try:
                told = json.loads(answer.read(1_000_000)).get("config", {})
                always = told.get("sync_always") is True
            except (ValueError, AttributeError) as error:
                raise InputError(f"{address}: expected what a NATS server tells of JetStream") from error
        if not always:
            raise InputError(
                f"{self.name}: jetstream.sync_interval: not always, so that a power cut loses what was "
                "acknowledged; expected 'sync_interval: always' in the server's config, or 3 replicas"
            )

    async def _last(self, subject: str) -> tuple[str, int] | None:
        try:
            message = await self._connected().get_last_msg(self._config.stream, subject)
        except NotFoundError:
            return None
        boot, _, seq = (message.headers or {}).get(Header.MSG_ID, "").rpartition(":")
        return (boot, int(seq)) if boot and seq.isdecimal() else None

    async def _put(self, entries: Sequence[Entry]) -> None:
        """Have all of a window stored or nothing, so that the last one tells of all before it."""
        try:
            await self._answered(self._send_batch(entries))
        except APIError as error:
            if error.err_code != _DUPLICATE_IN_BATCH:
                raise
            for entry in entries:  # one after the other, so that none is stored before one that was refused
                await self._answered(self._send(entry, {}))

    async def _send_batch(self, entries: Sequence[Entry]) -> PubAck:
        batch, client = token_hex(16), self._client
        assert client is not None
        for number, entry in enumerate(entries[:-1], 1):
            headers = _headers(entry) | {_BATCH: batch, _BATCH_SEQUENCE: str(number)}
            await client.publish(subject_of(entry.plant, entry.line), entry.payload, headers=headers)
        end = {_BATCH: batch, _BATCH_SEQUENCE: str(len(entries)), _BATCH_COMMIT: "1"}
        return await self._send(entries[-1], end)

    async def _send(self, entry: Entry, headers: dict[str, str]) -> PubAck:
        return await self._connected().publish(
            subject_of(entry.plant, entry.line),
            entry.payload,
            timeout=self._config.timeout_s,
            headers=_headers(entry) | headers,
        )

    async def _answered(self, work: Coroutine[Any, Any, PubAck]) -> PubAck:
        """Wait for an acknowledgement, but not any longer than there is a connection."""
        self._connected()
        acknowledged = asyncio.ensure_future(work)
        disconnected = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({acknowledged, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if not acknowledged.done():
                raise nats.errors.ConnectionClosedError
            return acknowledged.result()
        finally:
            disconnected.cancel()
            acknowledged.cancel()

    async def _after(self, position: int, limit: int, wait_s: float) -> list[Stored]:
        stream = self._connected()
        if self._reader is None or self._read[0] != position:
            self._reader = await stream.pull_subscribe(
                f"{PREFIX}.>",
                stream=self._config.stream,
                config=ConsumerConfig(
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                    opt_start_seq=position + 1,
                    ack_policy=AckPolicy.NONE,
                    inactive_threshold=_INACTIVE_S,
                    mem_storage=True,
                ),
            )
            self._read = (position, 0)
        try:
            messages = await self._reader.fetch(limit, timeout=wait_s)
        except (TimeoutError, nats.errors.TimeoutError):
            if self._client is None or not self._client.is_connected:
                raise nats.errors.ConnectionClosedError from None
            return []
        found = []
        for message in messages:
            at = message.metadata.sequence
            if at.consumer != self._read[1] + 1:  # one was lost between the server and us: read it again
                self._reader = None
                break
            self._read = (at.stream, at.consumer)
            found.append(_stored(message))
        return found

    def _connected(self) -> JetStreamContext:
        if self._stream is None:
            raise nats.errors.ConnectionClosedError
        return self._stream


def subject_of(plant: str, line: str) -> str:
    """Name the subject of a line; a dot would begin another level of it."""
    return f"{PREFIX}.{plant.replace('.', '%2E')}.{line.replace('.', '%2E')}"


def _headers(entry: Entry) -> dict[str, str]:
    headers = {str(Header.MSG_ID.value): f"{entry.boot}:{entry.seq}", PLANT: entry.plant}
    if entry.product is not None:
        headers[PRODUCT] = entry.product
    return headers


def _stored(message: Msg) -> Stored:
    headers = message.headers or {}
    metadata = message.metadata
    return Stored(
        position=metadata.sequence.stream,
        stored_at=metadata.timestamp,
        plant=headers.get(PLANT, ""),
        product=headers.get(PRODUCT),
        payload=message.data,
    )


def _options(config: NatsConfig, password: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": "inspectd-fleet",
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.05,
        "connect_timeout": config.timeout_s,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "pending_size": 64 * 1024 * 1024,
    }
    if config.credentials is not None:
        try:
            config.credentials.read_bytes()
        except OSError as error:
            raise refused_by_system(
                f"{config.credentials}: cannot be read: {error.strerror}", error
            ) from error
        options["user_credentials"] = str(config.credentials)
    if config.user is not None:
        options["user"] = config.user
    if password is not None:
        options["password"] = password
    if config.ca or config.certificate or any(server.startswith("tls:") for server in config.servers):
        options["tls"] = tls_context(config.ca, config.certificate, config.certificate_key)
    return options


def _without_user(server: str) -> str:
    scheme, _, rest = server.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _plain(value: object) -> str:
    return str(getattr(value, "value", value))


def _said(error: Exception) -> str:
    said = str(error).removeprefix("nats: ").strip("'") or type(error).__name__
    match error:
        case ServiceUnavailableError(err_code=None) | nats.errors.NoRespondersError():
            said = "JetStream is not on there"
        case APIError():
            said = error.description or said
        case urllib.error.URLError():
            why = error.reason
            said = f"its monitoring port: {_said(why) if isinstance(why, Exception) else why}"
        case nats.errors.ConnectionClosedError():
            said = "the connection was lost"
        case ssl.SSLError():
            said = reason(error)
        case OSError() if error.errno is not None and error.errno > 0:
            said = os.strerror(error.errno)
    return said
