"""The vision system in the address space: what clients read and are told, as the line fares."""

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from asyncua import Node, Server, ua
from asyncua.common.events import Event
from asyncua.common.instantiate_util import instantiate
from asyncua.ua import VariantType as Kind

from plant.outputs import Delivery, LineNow
from plant.outputs.opcua.model import (
    RESULT_KINDS,
    Model,
    configuration_of,
    event_parts,
    parts_of,
    recipe_id,
    result_of,
    types,
)
from plant.outputs.opcua.products import UNNAMED, Configuration, Products
from plant.outputs.opcua.results import Results
from verdicts.verdict import Verdict

_log = logging.getLogger(__name__)
codes: Any = ua.StatusCodes

_VISION_SYSTEM: Final = 1003
_RECIPE_MANAGEMENT: Final = 1004
_CONFIGURATION_MANAGEMENT: Final = 1006
_RESULT_MANAGEMENT: Final = 1007
_AUTOMATIC_MODE: Final = 1021
_RECIPE: Final = 1002
_RECIPE_FOLDER: Final = 1008
_PRODUCT_FOLDER: Final = 1010
_CONFIGURATION_FOLDER: Final = 1011
_RESULT_FOLDER: Final = 1016
_RESULT: Final = 2002
_STATE_CHANGED: Final = 1018
_ERROR: Final = 1019
_ERROR_RESOLVED: Final = 1020
_RECIPE_PREPARED: Final = 1022
_INFORMATION: Final = 1038

_STATES: Final = {"Preoperational": 5028, "Halted": 5029, "Error": 5030, "Operational": 5031}
_CONTINUOUS: Final = ("ContinuousExecution", 5059)
_INITIALIZED: Final = ("Initialized", 5056)
_TRANSITIONS: Final = {
    ("Preoperational", "Operational"): ("PreoperationalToOperationalAuto", 5254),
    ("Preoperational", "Error"): ("PreoperationalToErrorAuto", 5034),
    ("Preoperational", "Halted"): ("PreoperationalToHaltedAuto", 5033),
    ("Halted", "Preoperational"): ("HaltedToPreoperationalAuto", 5038),
    ("Error", "Preoperational"): ("ErrorToPreoperationalAuto", 5040),
    ("Error", "Halted"): ("ErrorToHaltedAuto", 5042),
    ("Error", "Operational"): ("ErrorToOperationalAuto", 5255),
    ("Operational", "Preoperational"): ("OperationalToPreoperationalAuto", 5048),
    ("Operational", "Halted"): ("OperationalToHaltedAuto", 5050),
    ("Operational", "Error"): ("OperationalToErrorAuto", 5051),
}
"""Those of OPC 40100-1 that a system makes by itself; from Halted every way leads through Preoperational."""

_STATE_OF: Final = {
    "starting": "Preoperational",
    "running": "Operational",
    "degraded": "Operational",
    "stopping": "Halted",
    "failed": "Error",
    "silent": "Error",
}
_PRODUCTION: Final = 1
_STANDBY: Final = 2
_UNSCHEDULED_DOWNTIME: Final = 5
"""SystemState of OPC 40100-1, after SEMI E10."""

_SEVERITY: Final = {"pass": 100, "reject": 500, "fault": 700}


class _Told(NamedTuple):
    """What clients were told last of the line."""

    state: str
    text: str
    product: str | None
    counts: tuple[int, ...]
    cameras: Mapping[str, str]


class Space:
    """The nodes of one line. Every coroutine runs in the server's event loop, and ends soon."""

    def __init__(self, server: Server, model: Model, line: str, products: Products, results: Results) -> None:
        self.results = results
        self.products = products
        self._server = server
        self._model = model
        self._line = line
        self._told: _Told | None = None
        self._product: str | None = None
        self._machine = "Preoperational"
        self._cameras: set[str] = set()
        self._recipes: list[str] = []

    async def build(self) -> None:
        """Make the nodes; nothing is known of the line yet."""
        model, objects = self._model, self._server.nodes.objects
        system = await objects.add_object(
            self._id(""),
            ua.QualifiedName(self._line, model.own),
            objecttype=model.standard(_VISION_SYSTEM),
            instantiate_optional=False,
        )
        for path, number in (
            ("VisionStateMachine.AutomaticModeStateMachine", _AUTOMATIC_MODE),
            ("ResultManagement", _RESULT_MANAGEMENT),
            ("ResultManagement.Results", _RESULT_FOLDER),
            ("RecipeManagement", _RECIPE_MANAGEMENT),
            ("RecipeManagement.Recipes", _RECIPE_FOLDER),
            ("RecipeManagement.Products", _PRODUCT_FOLDER),
            ("ConfigurationManagement", _CONFIGURATION_MANAGEMENT),
            ("ConfigurationManagement.Configurations", _CONFIGURATION_FOLDER),
        ):
            await self._add(path, number)
        await self._add_variable("", "SystemState", model.standard(3024), model.vision)
        for name in ("Passes", "Rejects", "Faults"):
            await self._add_variable("", name, ua.NodeId(ua.ObjectIds.UInt64), model.own)
        await self._add_variable("", "LineState", ua.NodeId(ua.ObjectIds.String), model.own)
        await system.add_object(self._id("Cameras"), ua.QualifiedName("Cameras", model.own))
        await instantiate(
            self.node("ResultManagement.Results"),
            self._server.get_node(model.standard(_RESULT)),
            nodeid=self._id("ResultManagement.Results.LastResult"),
            bname=ua.QualifiedName("LastResult", model.own),
            dname=ua.LocalizedText("LastResult"),
        )
        content = self.node("ResultManagement.Results.LastResult.ResultContent")
        await content.write_attribute(
            ua.AttributeIds.DataType, ua.DataValue(ua.Variant(model.content, Kind.NodeId))
        )
        await self._make_notifier(system)
        await self._make_read_only()
        await self._quality(self._of_line, codes.BadWaitingForInitialData)
        await self._quality(self._of_result, codes.BadWaitingForInitialData)

    def node(self, path: str) -> Node:
        """Give a node by its way from the system, such as ``ResultManagement.GetResultById``."""
        return self._server.get_node(self._id(path))

    async def show(self, line: LineNow) -> None:
        """Show how the line fares: values where they are known, bad quality where they are not."""
        now = _told(line)
        if now == self._told:
            return
        before, self._told = self._told, now
        await self._show_state(before, now)
        if now.product is not None:
            if self._product not in (None, now.product):
                await self.tell_prepared(now.product)
            self._product = now.product
        if before is None or before.state == "silent" or before.product != now.product:
            await self._show_active()

    async def publish(self, deliveries: Sequence[Delivery]) -> None:
        """Keep results, tell whoever listens, and show the last."""
        for verdict, repeated in deliveries:
            self.results.add(verdict)
            await self._tell_result(verdict, repeated=repeated)
        if self._told is None or _STATE_OF[self._told.state] != "Operational":
            return  # what is shown of a line that does not judge has bad quality
        verdict, repeated = deliveries[-1]
        result = self.result_of(verdict, repeated=repeated)
        await self._write("ResultManagement.Results.LastResult", ua.Variant(result, Kind.ExtensionObject))
        for name, value in parts_of(result).items():
            await self._write(f"ResultManagement.Results.LastResult.{name}", value)

    def result_of(self, verdict: Verdict, *, repeated: bool = False) -> Any:
        """Make the result of OPC 40100-1 from a verdict."""
        product = self.products.judged_by(verdict.model, self.active)
        configuration = self.products.configurations.get(product)
        return result_of(verdict, product, configuration, repeated=repeated)

    @property
    def active(self) -> str | None:
        """The product that is judged, ``UNNAMED`` where the line names none; None while that is not known."""
        if self._told is None or self._told.state == "silent":
            return None
        return self._told.product or UNNAMED

    async def show_products(self) -> None:
        """Show the products as they are now."""
        named = self.products.configurations
        await self._keep_only("RecipeManagement.Recipes", self.products.names)
        await self._keep_only("RecipeManagement.Products", self.products.names)
        folder = "ConfigurationManagement.Configurations"
        await self._keep_only(folder, named)
        for name in self.products.names:
            await self._show_recipe(name, named.get(name))
        for name, configuration in named.items():
            path = f"{folder}.{name}"
            if not self._has(path):
                await self._add_variable(folder, name, self._model.standard(3007), self._model.own)
            await self._write(path, ua.Variant(configuration_of(name, configuration), Kind.ExtensionObject))
        self._recipes = self.products.names
        await self._make_read_only()
        await self._show_active()

    async def tell_prepared(self, product: str) -> None:
        """Tell that a recipe is prepared, which is to say that a product is judged from now on."""
        configuration = self.products.configurations.get(product)
        fields = {
            "ExternalId": ua.Variant(recipe_id(product, configuration, external=True), Kind.ExtensionObject),
            "InternalId": ua.Variant(recipe_id(product, configuration), Kind.ExtensionObject),
            "ProductId": ua.Variant(types.ProductIdDataType(Id=product), Kind.ExtensionObject),
        }
        event_type = self._model.standard(_RECIPE_PREPARED)
        await self._tell(event_type, f"{self._line} judges {product}", 300, fields)

    async def tell_failure(self, text: str) -> None:
        """Tell that what a client asked for could not be done."""
        _log.warning("opcua: %s", text)
        await self._tell(self._model.standard(_INFORMATION), text, 600, {})

    async def _show_state(self, before: _Told | None, now: _Told) -> None:
        machine = _STATE_OF[now.state]
        if now.state == "silent":
            await self._quality(self._of_line, codes.BadNoCommunication)
            await self._quality(self._of_result, codes.BadNoCommunication)
        else:
            await self._write_state(now, machine)
            if machine != "Operational":
                await self._quality(self._of_result, codes.BadOutOfService)
            elif before is not None and _STATE_OF[before.state] != machine:
                await self._quality(self._of_result, codes.BadWaitingForInitialData)
        if before is None or _STATE_OF[before.state] != machine:
            await self._tell_transition(machine, now.text)

    async def _write_state(self, now: _Told, machine: str) -> None:
        mode, number = _CONTINUOUS if machine == "Operational" else _INITIALIZED
        path = "VisionStateMachine"
        for at, name, id_ in (
            (path, machine, _STATES[machine]),
            (f"{path}.AutomaticModeStateMachine", mode, number),
        ):
            text = ua.LocalizedText(name, "en")
            await self._write(f"{at}.CurrentState", ua.Variant(text, Kind.LocalizedText))
            state = ua.Variant(self._model.standard(id_), Kind.NodeId)
            await self._write(f"{at}.CurrentState.Id", state)
        if machine == "Operational":
            system = _PRODUCTION
        else:
            system = _UNSCHEDULED_DOWNTIME if machine == "Error" else _STANDBY
        described = types.SystemStateDescriptionDataType(
            State=types.SystemStateDataType(system), StateDescription=now.text
        )
        await self._write("SystemState", ua.Variant(described, Kind.ExtensionObject))
        await self._write("LineState", ua.Variant(now.state, Kind.String))
        for name, count in zip(("Passes", "Rejects", "Faults"), now.counts, strict=True):
            await self._write(name, ua.Variant(count, Kind.UInt64))
        for camera, state_ in now.cameras.items():
            if camera not in self._cameras:
                string = ua.NodeId(ua.ObjectIds.String)
                await self._add_variable("Cameras", camera, string, self._model.own)
                self._cameras.add(camera)
            await self._write(f"Cameras.{camera}", ua.Variant(state_, Kind.String))
        gone = self._cameras - now.cameras.keys()
        await self._quality([f"Cameras.{camera}" for camera in gone], codes.BadOutOfService)

    async def _show_active(self) -> None:
        path = "ConfigurationManagement.ActiveConfiguration"
        active = self.active
        if active is None:
            return  # its quality is bad, as that of all that is known of the line
        configuration = self.products.configurations.get(active)
        if configuration is None:
            await self._quality([path], codes.BadConfigurationError)
        else:
            value = configuration_of(active, configuration)
            await self._write(path, ua.Variant(value, Kind.ExtensionObject))
        for name in self.products.names:
            is_active = ua.Variant(name == active, Kind.Boolean)
            await self._write(f"RecipeManagement.Recipes.{name}.IsPrepared", is_active)

    async def _show_recipe(self, name: str, configuration: Configuration | None) -> None:
        path, products = f"RecipeManagement.Recipes.{name}", "RecipeManagement.Products"
        if not self._has(path):
            await self.node("RecipeManagement.Recipes").add_object(
                self._id(path),
                ua.QualifiedName(name, self._model.own),
                objecttype=self._model.standard(_RECIPE),
                instantiate_optional=False,
            )
            await self._add_variable(products, name, self._model.standard(3020), self._model.own)
        await self._write(
            f"{path}.InternalId", ua.Variant(recipe_id(name, configuration), Kind.ExtensionObject)
        )
        if configuration is not None:
            await self._write(f"{path}.LastModified", ua.Variant(configuration.changed_at, Kind.DateTime))
        named = types.ProductDataType(ExternalId=types.ProductIdDataType(Id=name))
        await self._write(f"{products}.{name}", ua.Variant(named, Kind.ExtensionObject))

    async def _keep_only(self, folder: str, names: Collection[str]) -> None:
        there = await self.node(folder).get_children()
        wanted = {self._id(f"{folder}.{name}") for name in names}
        gone = [node for node in there if node.nodeid not in wanted]
        await self._server.delete_nodes(gone, recursive=True)

    def _has(self, path: str) -> bool:
        return self._id(path) in self._server.iserver.aspace

    async def _tell_result(self, verdict: Verdict, *, repeated: bool) -> None:
        fields = parts_of(self.result_of(verdict, repeated=repeated)) | event_parts(
            verdict, repeated=repeated
        )
        score = "" if verdict.score is None else f", score {verdict.score:.4g}"
        reason = "" if verdict.reason is None else f" ({verdict.reason})"
        text = f"{verdict.decision}{reason}: {verdict.part or verdict.frame} at {verdict.camera}{score}"
        await self._tell(self._model.result_event, text, _SEVERITY[verdict.decision], fields)

    async def _tell_transition(self, machine: str, text: str) -> None:
        """Tell by which way the state machine came to a state."""
        way = [machine]
        if (self._machine, machine) not in _TRANSITIONS and self._machine != machine:
            way = ["Preoperational", machine]
        for state in way:
            known = _TRANSITIONS.get((self._machine, state))
            if known is None:
                continue
            transition, number = known
            fields = {
                "FromState": ua.Variant(ua.LocalizedText(self._machine, "en"), Kind.LocalizedText),
                "FromState/Id": ua.Variant(self._model.standard(_STATES[self._machine]), Kind.NodeId),
                "ToState": ua.Variant(ua.LocalizedText(state, "en"), Kind.LocalizedText),
                "ToState/Id": ua.Variant(self._model.standard(_STATES[state]), Kind.NodeId),
                "Transition": ua.Variant(ua.LocalizedText(transition, "en"), Kind.LocalizedText),
                "Transition/Id": ua.Variant(self._model.standard(number), Kind.NodeId),
            }
            event_types = [_STATE_CHANGED]
            if state == "Error":
                event_types.append(_ERROR)
            elif self._machine == "Error":
                event_types.append(_ERROR_RESOLVED)
            severity = 800 if state == "Error" else 300
            for event_type in event_types:
                await self._tell(self._model.standard(event_type), f"{self._line}: {text}", severity, fields)
            self._machine = state

    async def _tell(
        self, event_type: ua.NodeId, text: str, severity: int, fields: Mapping[str, ua.Variant]
    ) -> None:
        """Send an event to those who listen at the system and to those who listen at the server."""
        system, now = self._id(""), datetime.now(UTC)
        event = Event()
        for name, value in {
            "EventId": ua.Variant(uuid.uuid4().bytes, Kind.ByteString),
            "EventType": ua.Variant(event_type, Kind.NodeId),
            "SourceNode": ua.Variant(system, Kind.NodeId),
            "SourceName": ua.Variant(self._line, Kind.String),
            "Time": ua.Variant(now, Kind.DateTime),
            "ReceiveTime": ua.Variant(now, Kind.DateTime),
            "Message": ua.Variant(ua.LocalizedText(text, "en"), Kind.LocalizedText),
            "Severity": ua.Variant(severity, Kind.UInt16),
            **fields,
        }.items():
            event.add_property(name, value.Value, value.VariantType)
        for notifier in (system, ua.NodeId(ua.ObjectIds.Server)):
            event.emitting_node = notifier
            await self._server.iserver.subscription_service.trigger_event(event)

    async def _make_notifier(self, system: Node) -> None:
        """Say in the address space that events come from here, and from the server, which hears all."""
        for node in (system, self._server.nodes.server):
            await node.set_event_notifier([ua.EventNotifier.SubscribeToEvents])
        await self._server.nodes.server.add_reference(system, ua.ObjectIds.HasNotifier)
        told = [_STATE_CHANGED, _ERROR, _ERROR_RESOLVED, _RECIPE_PREPARED, _INFORMATION]
        for event_type in [self._model.result_event, *map(self._model.standard, told)]:
            await system.add_reference(self._server.get_node(event_type), ua.ObjectIds.GeneratesEvent)

    async def _make_read_only(self) -> None:
        """Say what holds anyway: the nodeset declares many values as writable."""
        space = self._server.iserver.aspace
        for node_id in list(space.keys()):
            is_own = node_id.NamespaceIndex == self._model.own
            if is_own and ua.AttributeIds.AccessLevel in space[node_id].attributes:
                await self._server.get_node(node_id).set_read_only()

    @property
    def _of_line(self) -> list[str]:
        return [
            *(
                f"VisionStateMachine{mode}.CurrentState{part}"
                for mode in ("", ".AutomaticModeStateMachine")
                for part in ("", ".Id")
            ),
            *("SystemState", "LineState", "Passes", "Rejects", "Faults"),
            "ConfigurationManagement.ActiveConfiguration",
            *(f"Cameras.{camera}" for camera in self._cameras),
            *(f"RecipeManagement.Recipes.{name}.IsPrepared" for name in self._recipes),
        ]

    @property
    def _of_result(self) -> list[str]:
        path = "ResultManagement.Results.LastResult"
        return [path, f"{path}.ResultContent", *(f"{path}.{name}" for name in RESULT_KINDS)]

    async def _quality(self, paths: Collection[str], code: int) -> None:
        now = datetime.now(UTC)
        for path in paths:
            await self._set(path, ua.DataValue(ua.Variant(None), ua.StatusCode(code), now, now))

    async def _write(self, path: str, value: ua.Variant) -> None:
        now = datetime.now(UTC)
        await self._set(path, ua.DataValue(value, ua.StatusCode(codes.Good), now, now))

    async def _set(self, path: str, value: ua.DataValue) -> None:
        await self._server.write_attribute_value(self._id(path), value)

    async def _add(self, path: str, number: int) -> None:
        parent, _, name = path.rpartition(".")
        await self.node(parent).add_object(
            self._id(path),
            ua.QualifiedName(name, self._model.vision),
            objecttype=self._model.standard(number),
            instantiate_optional=False,
        )

    async def _add_variable(self, parent: str, name: str, data_type: ua.NodeId, namespace: int) -> None:
        node_id = self._id(f"{parent}.{name}" if parent else name)
        qualified = ua.QualifiedName(name, namespace)
        await self.node(parent).add_variable(node_id, qualified, None, datatype=data_type)

    def _id(self, path: str) -> ua.NodeId:
        """Give a node's id: the same after each start, so that a client may keep it."""
        return ua.NodeId(f"{self._line}.{path}" if path else self._line, self._model.own)


def _told(line: LineNow) -> _Told:
    health = line.health
    if health is None or line.silent:
        return _Told("silent", "the line gives no sign of life", None, (0, 0, 0), {})
    text = health.state if health.error is None else f"{health.state}: {health.error}"
    counts = tuple(health.verdicts[name] for name in ("pass", "reject", "fault"))
    cameras = {name: camera.state for name, camera in health.cameras.items()}
    return _Told(health.state, text, health.product, counts, cameras)
