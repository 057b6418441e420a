"""The information model: OPC 40100-1 from its nodeset, our result content, and how a verdict fills both."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from asyncua import Server, ua
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field
from asyncua.ua import VariantType as Kind

from plant.outputs.opcua.nodeset import NODESET
from plant.outputs.opcua.products import Configuration
from plant.outputs.opcua.results import id_of
from verdicts import Verdict

MACHINE_VISION: Final = "http://opcfoundation.org/UA/MachineVision"
INSPECTD: Final = "urn:inspectd:opcua"

types: Any = ua
"""Where asyncua puts the classes of structures that it has loaded."""

_LIKE_BINARY_ID: Final = ("ConfigurationIdDataType", "RecipeIdExternalDataType", "RecipeIdInternalDataType")
_RESULT_READY: Final = 1024

COMPLETED: Final = 1
FAILED: Final = 4
"""ResultState of OPC 40100-1: a part that was judged; one that was not."""

DECISIONS: Final = ("Undefined", "Pass", "Reject", "Fault")


class Field(NamedTuple):
    """One value of a result: in the structure of its content, and of the event."""

    name: str
    kind: Kind
    optional: bool
    of: Callable[[Verdict], Any]


def _of_peak(axis: str) -> Callable[[Verdict], int | None]:
    return lambda verdict: None if verdict.peak is None else int(getattr(verdict.peak, axis))


def captured_at(verdict: Verdict) -> datetime:
    """Give the moment of the capture."""
    return datetime.fromisoformat(verdict.captured_at).astimezone(UTC)


FIELDS: Final = (
    Field("Reason", Kind.String, True, lambda verdict: verdict.reason),
    Field("Score", Kind.Double, True, lambda verdict: verdict.score),
    Field("Threshold", Kind.Double, False, lambda verdict: verdict.threshold),
    Field("PeakX", Kind.Int32, True, _of_peak("x")),
    Field("PeakY", Kind.Int32, True, _of_peak("y")),
    Field("Camera", Kind.String, False, lambda verdict: verdict.camera),
    Field("Frame", Kind.Int64, False, lambda verdict: verdict.frame),
    Field("Boot", Kind.String, False, lambda verdict: verdict.boot),
    Field("Seq", Kind.Int64, False, lambda verdict: verdict.seq),
    Field("Model", Kind.String, False, lambda verdict: verdict.model),
    Field("CapturedAt", Kind.DateTime, False, captured_at),
    Field("WaitMs", Kind.Double, True, lambda verdict: verdict.latency_ms.wait),
    Field("InferMs", Kind.Double, True, lambda verdict: verdict.latency_ms.infer),
    Field("TotalMs", Kind.Double, False, lambda verdict: verdict.latency_ms.total),
    Field("Archive", Kind.String, True, lambda verdict: verdict.archive),
)
"""After Decision, and before Repeated."""


class Model:
    """What stands in a server's address space once ``load`` is done.

    Attributes:
        vision: index of the namespace of OPC 40100-1.
        own: index of ours.
        content: type of our result content.
        result_event: type of the event of a result, below ResultReadyEventType.
    """

    vision: int
    own: int
    content: ua.NodeId
    result_event: ua.NodeId

    async def load(self, server: Server) -> None:
        """Put the types into a server."""
        await server.import_xml(xmlstring=_complete(NODESET.read_text()))
        self.vision = await server.get_namespace_index(MACHINE_VISION)
        self.own = await server.register_namespace(INSPECTD)
        decision = await new_enum(
            server, self._id("DecisionDataType"), self._name("DecisionDataType"), list(DECISIONS)
        )
        content = [new_struct_field("Decision", decision)]
        content += [new_struct_field(one.name, one.kind, optional=one.optional) for one in FIELDS]
        content.append(new_struct_field("Repeated", Kind.Boolean))
        name = "InspectionResultDataType"
        made, _ = await new_struct(server, self._id(name), self._name(name), content)
        self.content = made.nodeid
        await self._make_event(server, decision.nodeid)
        await server.load_data_type_definitions()

    def standard(self, number: int) -> ua.NodeId:
        """Give the id of a node of OPC 40100-1."""
        return ua.NodeId(number, self.vision)

    def _id(self, name: str) -> ua.NodeId:
        return ua.NodeId(name, self.own)

    def _name(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(name, self.own)

    async def _make_event(self, server: Server, decision: ua.NodeId) -> None:
        name = "InspectionResultReadyEventType"
        parent = server.get_node(self.standard(_RESULT_READY))
        made = await parent.add_object_type(self._id(name), self._name(name))
        fields = {
            "Decision": decision,
            **{one.name: ua.NodeId(one.kind.value) for one in FIELDS},
            "Repeated": ua.NodeId(ua.ObjectIds.Boolean),
        }
        for field, data_type in fields.items():
            added = await made.add_property(
                self._id(f"{name}.{field}"), self._name(field), None, datatype=data_type
            )
            await added.set_modelling_rule(True)
        self.result_event = made.nodeid


def _complete(nodeset: str) -> str:
    """Write out the definitions that the nodeset leaves empty, to say: as in the type above.

    asyncua would take these types for the one above, and tell clients so.
    """
    begin = nodeset.index('<Definition Name="1:BinaryIdBaseDataType">')
    fields = nodeset[nodeset.index("<Field", begin) : nodeset.index("</Definition>", begin)]
    for name in _LIKE_BINARY_ID:
        empty = f'<Definition Name="1:{name}" />'
        nodeset = nodeset.replace(empty, f'<Definition Name="1:{name}">{fields}</Definition>')
    return nodeset


def recipe_id(product: str, configuration: Configuration | None, *, external: bool = False) -> Any:
    """Make the id of a recipe, which is a product."""
    kind = types.RecipeIdExternalDataType if external else types.RecipeIdInternalDataType
    return _binary_id(kind, product, configuration)


def configuration_id(product: str, configuration: Configuration | None) -> Any:
    """Make the id of a configuration: the engine and calibration of a product."""
    return _binary_id(types.ConfigurationIdDataType, product, configuration)


def _binary_id(kind: Any, product: str, configuration: Configuration | None) -> Any:
    if configuration is None:
        return kind(Id=product)
    return kind(
        Id=product,
        Hash=configuration.digest,
        HashAlgorithm="SHA-256",
        Description=ua.LocalizedText(f"model {configuration.model}"),
    )


def configuration_of(product: str, configuration: Configuration) -> Any:
    """Make the structure that describes a configuration."""
    return types.ConfigurationDataType(
        HasTransferableDataOnFile=False,
        InternalId=configuration_id(product, configuration),
        LastModified=configuration.changed_at,
    )


def content_of(verdict: Verdict, *, repeated: bool) -> Any:
    """Make the structure of a result's content."""
    return types.InspectionResultDataType(
        Decision=types.DecisionDataType(_decision(verdict)),
        Repeated=repeated,
        **{field.name: field.of(verdict) for field in FIELDS},
    )


def result_of(verdict: Verdict, product: str, configuration: Configuration | None, *, repeated: bool) -> Any:
    """Make the result of OPC 40100-1 from a verdict.

    Args:
        verdict: which one.
        product: of which it judged; "" where that is not known.
        configuration: of the product.
        repeated: whether it may have been told before.
    """
    captured = captured_at(verdict)
    judged = captured + timedelta(milliseconds=verdict.latency_ms.total)
    return types.ResultDataType(
        ResultId=types.ResultIdDataType(Id=id_of(verdict)),
        HasTransferableDataOnFile=False,
        IsPartial=False,
        IsSimulated=False,
        ResultState=FAILED if verdict.decision == "fault" else COMPLETED,
        PartId=None if verdict.part is None else types.PartIdDataType(Id=verdict.part),
        InternalRecipeId=recipe_id(product, configuration),
        ProductId=types.ProductIdDataType(Id=product) if product else None,
        InternalConfigurationId=configuration_id(product, configuration),
        JobId=types.JobIdDataType(Id=""),
        CreationTime=judged,
        ProcessingTimes=types.ProcessingTimesDataType(
            StartTime=captured, EndTime=judged, ProcessingDuration=verdict.latency_ms.total
        ),
        ResultContent=[ua.Variant(content_of(verdict, repeated=repeated), Kind.ExtensionObject)],
    )


RESULT_KINDS: Final = {
    "ResultId": Kind.ExtensionObject,
    "HasTransferableDataOnFile": Kind.Boolean,
    "IsPartial": Kind.Boolean,
    "IsSimulated": Kind.Boolean,
    "ResultState": Kind.Int32,
    "MeasId": Kind.ExtensionObject,
    "PartId": Kind.ExtensionObject,
    "ExternalRecipeId": Kind.ExtensionObject,
    "InternalRecipeId": Kind.ExtensionObject,
    "ProductId": Kind.ExtensionObject,
    "ExternalConfigurationId": Kind.ExtensionObject,
    "InternalConfigurationId": Kind.ExtensionObject,
    "JobId": Kind.ExtensionObject,
    "CreationTime": Kind.DateTime,
    "ProcessingTimes": Kind.ExtensionObject,
}
"""The parts of a result before ResultContent, and as what each is sent: in the order of the standard."""


def parts_of(result: Any) -> dict[str, ua.Variant]:
    """Give the parts of a result, each as a value of its own; what it does not have is null."""
    parts = {}
    for name, kind in RESULT_KINDS.items():
        value = getattr(result, name)
        parts[name] = ua.Variant(None) if value is None else ua.Variant(value, kind)
    content = [one.Value for one in result.ResultContent or []]
    return parts | {"ResultContent": ua.Variant(content, Kind.ExtensionObject, is_array=True)}


def event_parts(verdict: Verdict, *, repeated: bool) -> dict[str, ua.Variant]:
    """Give the fields that the event of a result has of its own."""
    parts = {
        field.name: ua.Variant(value, field.kind)
        for field in FIELDS
        if (value := field.of(verdict)) is not None
    }
    parts["Decision"] = ua.Variant(_decision(verdict), Kind.Int32)
    parts["Repeated"] = ua.Variant(repeated, Kind.Boolean)
    return parts


def _decision(verdict: Verdict) -> int:
    return DECISIONS.index(verdict.decision.capitalize())
