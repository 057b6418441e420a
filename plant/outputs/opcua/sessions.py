"""What a client may do and how much of it: asyncua's sessions, with rights and bounds.

A client that hangs, or asks for more than anybody needs, must neither fill the memory nor hold up the others.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession, SessionState

from plant.outputs.opcua.security import LocalUser, Security, TrustedClients

codes: Any = ua.StatusCodes
_NOBODY: Final = User(role=UserRole.Anonymous)

SHORTEST_INTERVAL_MS: Final = 50.0
_LONGEST_SESSION_MS: Final = 120_000.0
_MOST_ITEMS: Final = 1000
_MOST_VALUES: Final = 50
_MOST_EVENTS: Final = 500
_MOST_UNACKNOWLEDGED: Final = 50
_MOST_NODES: Final = 1000
_MOST_WAITING: Final = 100
_MOST_BUFFERED_BYTES: Final = 1_000_000
_LOG_IN_S: Final = 20.0
_GUARD_EVERY_S: Final = 0.5


class _Users:
    """Tells asyncua who somebody is."""

    def __init__(self, security: Security) -> None:
        self._security = security

    def get_user(
        self, _server: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        found = self._security.user_of(username, password, certificate)
        return None if found is None else _KnownUser(found)


class _KnownUser(User):
    """Nobody is an administrator to asyncua: that one could change the address space."""

    def __init__(self, known: LocalUser) -> None:
        super().__init__(UserRole.User, known.name)
        self.control = known.control


class Sessions(InternalServer):
    """Makes the sessions.

    Attributes:
        controlling: methods that only users with ``control`` may call.
    """

    def __init__(self, security: Security, clients: int) -> None:
        """Set the bounds.

        Args:
            security: who may log in, and how.
            clients: so many connections at once.
        """
        super().__init__(_Users(security))
        self.security = security
        self.trusted = TrustedClients(security.trusted)
        self.controlling: set[ua.NodeId] = set()
        self.max_connections = clients
        self.max_subscriptions = 4 * clients
        self.max_session_timeout_ms = _LONGEST_SESSION_MS
        self.max_pending_activation_seconds = _LOG_IN_S
        self.max_pending_messages_per_connection = _MOST_WAITING
        self.max_unacked_messages_per_subscription = _MOST_UNACKNOWLEDGED
        self.max_monitored_item_queue_size = _MOST_EVENTS
        self.supported_tokens = tuple(
            token
            for token, wanted in (
                (ua.AnonymousIdentityToken, security.anonymous),
                (ua.UserNameIdentityToken, any(user.password for user in security.users.values())),
                (ua.X509IdentityToken, any(user.certificate for user in security.users.values())),
            )
            if wanted
        )
        self._made: list[_Session] = []

    def create_session(self, name: str, user: User = _NOBODY, external: bool = False) -> InternalSession:
        """Make a session; one that was never logged in to is forgotten after a while."""
        now_s = time.monotonic()
        for session in [session for session in self._made if session.ended(now_s)]:
            self.unregister_external_session(session)
            self._made.remove(session)
        if len(self._made) >= 4 * self.max_connections:
            raise ServiceError(codes.BadTooManySessions)
        made = _Session(self, self.aspace, self.subscription_service, name, user=user, external=external)
        self._made.append(made)
        return made

    def register_server(self, server: Any, conf: Any = None) -> None:
        """Refuse: this is no discovery server, and asks nobody who he is here."""
        raise ServiceError(codes.BadServiceUnsupported)

    async def guard(self, connections: Callable[[], Iterable[Any]]) -> None:
        """Hang up on clients that take nothing, and on those whose session has ended; runs for ever.

        Args:
            connections: gives asyncua's protocols.
        """
        while True:
            await asyncio.sleep(_GUARD_EVERY_S)
            for connection in list(connections()):
                transport, session = connection.transport, connection.processor.session
                closed = session is not None and session.ended(time.monotonic())
                if closed or transport.get_write_buffer_size() > _MOST_BUFFERED_BYTES:
                    transport.abort()


class _Session(InternalSession):
    """One client's session."""

    iserver: Sessions

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # asyncua counts its tokens, so that anybody could name the session of another.
        self.iserver.unregister_external_session(self)
        self.auth_token = ua.NodeId(secrets.token_bytes(32))
        self.iserver.register_external_session(self)
        self._begun_s = time.monotonic()
        self._certificate: bytes | None = None
        self._refusal: Any = None

    def ended(self, now_s: float) -> bool:
        """Whether it is closed, or was never activated in time."""
        if self.state is SessionState.Created:
            return self._begun_s < now_s - _LOG_IN_S
        return self.state is SessionState.Closed

    async def create_session(
        self, params: ua.CreateSessionParameters, sockname: tuple[str, int] | None = None
    ) -> ua.CreateSessionResult:
        result = await super().create_session(params, sockname)
        self._certificate = params.ClientCertificate or None
        if self._certificate is not None and self.iserver.security.encrypts:
            self._refusal = await self.iserver.trusted.refusal(self._certificate)
        return result

    def activate_session(
        self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None
    ) -> ua.ActivateSessionResult:
        """Let in whose channel is as the config wants it; then asyncua looks who the user is."""
        if not peer_certificate:
            # asyncua opens unencrypted channels in any case: endpoints are asked for over them.
            if "None" not in self.iserver.security.policies:
                raise ServiceError(codes.BadSecurityPolicyRejected)
        elif peer_certificate != self._certificate:
            raise ServiceError(codes.BadCertificateInvalid)
        elif self._refusal is not None:
            raise ServiceError(self._refusal)
        # The channel's certificate says which program this is; only a token's says which user.
        return super().activate_session(params, None)

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        if len(params.NodesToRead) > _MOST_NODES:
            raise ServiceError(codes.BadTooManyOperations)
        values: list[ua.DataValue] = await super().read(params)
        return values

    async def write(self, params: ua.WriteParameters) -> list[ua.StatusCode]:
        """Refuse: a client changes nothing but by methods, whatever the nodeset's types allow."""
        return [ua.StatusCode(codes.BadNotWritable) for _ in params.NodesToWrite]

    async def call(self, params: list[ua.CallMethodRequest]) -> list[ua.CallMethodResult]:
        """Call methods, each as far as this user may."""
        results = []
        for request in params:
            if request.MethodId in self.iserver.controlling and not getattr(self.user, "control", False):
                results.append(ua.CallMethodResult(StatusCode=ua.StatusCode(codes.BadUserAccessDenied)))
            else:
                results += await super().call([request])
        return results

    async def create_subscription(
        self,
        params: ua.CreateSubscriptionParameters,
        callback: Callable[..., Any],
        request_callback: Callable[..., Any] | None = None,
    ) -> ua.CreateSubscriptionResult:
        params.RequestedPublishingInterval = max(params.RequestedPublishingInterval, SHORTEST_INTERVAL_MS)
        return await super().create_subscription(params, callback, request_callback)

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        subscription = self.subscription_service.subscriptions.get(params.SubscriptionId)
        if subscription is not None:
            there = len(subscription.monitored_item_srv._monitored_items)
            if there + len(params.ItemsToCreate) > _MOST_ITEMS:
                raise ServiceError(codes.BadTooManyMonitoredItems)
        for item in params.ItemsToCreate:
            self._bound(item.RequestedParameters)
        made: list[ua.MonitoredItemCreateResult] = await super().create_monitored_items(params)
        return made

    async def modify_monitored_items(
        self, params: ua.ModifyMonitoredItemsParameters
    ) -> list[ua.MonitoredItemModifyResult]:
        for item in params.ItemsToModify:
            self._bound(item.RequestedParameters)
        modified: list[ua.MonitoredItemModifyResult] = await super().modify_monitored_items(params)
        return modified

    def _bound(self, parameters: ua.MonitoringParameters) -> None:
        asked = parameters.QueueSize
        if isinstance(parameters.Filter, ua.EventFilter):
            parameters.QueueSize = min(asked, _MOST_EVENTS) if asked > 1 else _MOST_EVENTS
            for element in parameters.Filter.WhereClause.Elements:
                self._include_subtypes(element)
        else:
            parameters.QueueSize = min(max(asked, 1), _MOST_VALUES)

    def _include_subtypes(self, element: ua.ContentFilterElement) -> None:
        """Say OfType as a list of types: asyncua compares with the type itself alone."""
        if element.FilterOperator != ua.FilterOperator.OfType or not element.FilterOperands:
            return
        wanted = getattr(getattr(element.FilterOperands[0], "Value", None), "Value", None)
        if not isinstance(wanted, ua.NodeId):
            return
        found, waiting = [], [wanted]
        while waiting:
            node_id = waiting.pop()
            found.append(node_id)
            node = self.aspace.get(node_id)
            waiting += [
                reference.NodeId
                for reference in (node.references if node is not None else [])
                if reference.IsForward and reference.ReferenceTypeId == ua.NodeId(ua.ObjectIds.HasSubtype)
            ]
        event_type = ua.SimpleAttributeOperand(
            TypeDefinitionId=ua.NodeId(ua.ObjectIds.BaseEventType),
            BrowsePath=[ua.QualifiedName("EventType")],
            AttributeId=ua.AttributeIds.Value,
        )
        element.FilterOperator = ua.FilterOperator.InList
        element.FilterOperands = [
            event_type,
            *(ua.LiteralOperand(Value=ua.Variant(node_id, ua.VariantType.NodeId)) for node_id in found),
        ]
