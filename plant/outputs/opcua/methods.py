"""The methods of OPC 40100-1: results, recipes and configurations, for those who may."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, Final

from asyncua import Server, ua
from asyncua.ua import VariantType as Kind

from plant.outputs.opcua.model import (
    configuration_of,
    parts_of,
    recipe_id,
    types,
)
from plant.outputs.opcua.products import UNNAMED
from plant.outputs.opcua.sessions import Sessions
from plant.outputs.opcua.space import Space
from verdicts import ControlRefused, ControlSilent, MalformedMessage, Verdict

_log = logging.getLogger(__name__)
codes: Any = ua.StatusCodes

_MOST_AT_ONCE: Final = 100
"""Results in one answer."""
_AT_ONCE_S: Final = 0.5
"""So long a client waits for a preparation; what takes longer is told by an event.

Nothing else of this client is answered meanwhile, and asyncua's gives a server up after a second.
"""

Answer = Sequence[ua.Variant]


class Error(IntEnum):
    """What a method answers as Error; OPC 40100-1 leaves the numbers below 0 to us."""

    NONE = 0
    UNKNOWN = -1
    REFUSED = -2
    SILENT = -3
    NOT_POSSIBLE = -4
    BUSY = -5


class Methods:
    """Answers calls; every coroutine runs in the server's event loop."""

    def __init__(
        self, server: Server, sessions: Sessions, space: Space, select: Callable[[str], str]
    ) -> None:
        """Prepare.

        Args:
            server: whose clients call.
            sessions: theirs, which look who may.
            space: what is known.
            select: has the line judge a product; called in a thread. Raises ``ControlRefused`` or
                ``ControlSilent``.
        """
        self._server = server
        self._sessions = sessions
        self._space = space
        self._select = select
        self._preparing: asyncio.Task[Error] | None = None

    def link(self) -> None:
        """Let clients call them."""
        results, recipes, configurations = (
            f"{name}Management" for name in ("Result", "Recipe", "Configuration")
        )
        for path, method, arguments in (
            (f"{results}.GetResultById", self._get_result, 2),
            (f"{results}.GetResultComponentsById", self._get_components, 2),
            (f"{results}.GetResultListFiltered", self._list_results, 12),
            (f"{recipes}.GetRecipeListFiltered", self._list_recipes, 6),
            (f"{recipes}.PrepareRecipe", self._prepare, 2),
            (f"{recipes}.UnprepareRecipe", self._unprepare, 2),
            (f"{configurations}.GetConfigurationList", self._list_configurations, 3),
            (f"{configurations}.GetConfigurationById", self._get_configuration, 2),
            (f"{configurations}.ActivateConfiguration", self._activate, 1),
        ):
            self._link(path, _checked(method, arguments))
        for path in (f"{recipes}.PrepareRecipe", f"{recipes}.UnprepareRecipe"):
            self._let_control_alone(path)
        self._let_control_alone(f"{configurations}.ActivateConfiguration")
        for path in (
            *(f"VisionStateMachine.{name}" for name in ("Halt", "Reset")),
            *(
                f"VisionStateMachine.AutomaticModeStateMachine.{name}"
                for name in ("Abort", "Stop", "StartSingleJob", "StartContinuous")
            ),
        ):
            self._link(path, _not_executable)
        self.link_recipes()

    def link_recipes(self) -> None:
        """Let clients call the methods of the recipes that there are now."""
        for name in self._space.products.names:
            path = f"RecipeManagement.Recipes.{name}"
            self._link(f"{path}.Prepare", _checked(partial(self._prepare_one, name), 0))
            self._link(f"{path}.Unprepare", _checked(self._unprepare_one, 0))
            self._let_control_alone(f"{path}.Prepare")
            self._let_control_alone(f"{path}.Unprepare")

    def _link(self, path: str, call: Callable[..., Awaitable[Answer | ua.StatusCode]]) -> None:
        self._server.link_method(self._space.node(path), call)

    def _let_control_alone(self, path: str) -> None:
        self._sessions.controlling.add(self._space.node(path).nodeid)

    async def _get_result(self, result_id: Any, _timeout: Any) -> Answer:
        verdict = await self._find(_text_of(result_id))
        result = types.ResultDataType() if verdict is None else self._space.result_of(verdict)
        return [_HANDLE, ua.Variant(result, Kind.ExtensionObject), _error(verdict)]

    async def _get_components(self, result_id: Any, _timeout: Any) -> Answer:
        verdict = await self._find(_text_of(result_id))
        result = types.ResultDataType() if verdict is None else self._space.result_of(verdict)
        parts = parts_of(result)
        del parts["ResultId"]
        transferable = parts.pop("HasTransferableDataOnFile")
        return [transferable, _HANDLE, *parts.values(), _error(verdict)]

    async def _list_results(self, *arguments: Any) -> Answer:
        state, *ids, most, start, _timeout = arguments
        measured, part, external_recipe, recipe, external_configuration, configuration, product, job = map(
            _text_of, ids
        )

        def fits(verdict: Verdict) -> bool:
            judged = self._space.products.judged_by(verdict.model, self._space.active)
            failed = verdict.decision == "fault"
            return (
                state in (None, 0, 4 if failed else 1)
                and part in ("", verdict.part)
                and all(one in ("", judged) for one in (external_recipe, recipe, product))
                and all(one in ("", judged) for one in (external_configuration, configuration))
                and not measured
                and not job
            )

        found, complete = _page(filter(fits, self._space.results), start, most)
        results = [self._space.result_of(verdict) for verdict in found]
        return _list(complete, results)

    async def _find(self, result: str) -> Verdict | None:
        return self._space.results.kept(result) or await asyncio.to_thread(
            self._space.results.in_journal, result
        )

    async def _list_recipes(
        self, external: Any, product: Any, prepared: Any, most: Any, start: Any, _timeout: Any
    ) -> Answer:
        wanted = {_text_of(external), _text_of(product)} - {""}
        fitting = [
            name
            for name in self._space.products.names
            if wanted <= {name} and prepared in (None, 2, int(name == self._space.active))
        ]
        names, complete = _page(fitting, start, most)
        configurations = self._space.products.configurations
        return _list(complete, [recipe_id(name, configurations.get(name)) for name in names])

    async def _prepare(self, external: Any, internal: Any) -> Answer:
        names = {_text_of(external), _text_of(internal)} - {""}
        if len(names) != 1 or not names <= {*self._space.products.names}:
            return _prepared("", Error.UNKNOWN)
        (name,) = names
        if self._preparing is not None and not self._preparing.done():
            return _prepared(name, Error.BUSY)
        self._preparing = task = asyncio.create_task(self._have_selected(name))
        await asyncio.wait([task], timeout=_AT_ONCE_S)
        if not task.done():
            return _prepared(name, Error.NONE, completed=False)
        return _prepared(name, task.result())

    async def _prepare_one(self, name: str) -> Answer:
        _, *answer = await self._prepare(None, types.RecipeIdInternalDataType(Id=name))
        return answer

    async def _unprepare_one(self) -> Answer:
        return [_number(Error.NOT_POSSIBLE)]

    async def _have_selected(self, name: str) -> Error:
        was_active = self._space.active == name
        try:
            await asyncio.to_thread(self._select, name)
        except (ControlRefused, MalformedMessage) as error:
            await self._space.tell_failure(f"{name} is not prepared: the line refuses: {error}")
            return Error.REFUSED
        except ControlSilent as error:
            await self._space.tell_failure(f"{name} is not prepared: {error}")
            return Error.SILENT
        if was_active:  # else health tells of the change
            await self._space.tell_prepared(name)
        return Error.NONE

    async def _unprepare(self, external: Any, internal: Any) -> Answer:
        return [
            ua.Variant(recipe_id(_text_of(internal) or _text_of(external), None), Kind.ExtensionObject),
            ua.Variant(False, Kind.Boolean),
            _number(Error.NOT_POSSIBLE),
        ]

    async def _list_configurations(self, most: Any, start: Any, _timeout: Any) -> Answer:
        named = self._space.products.configurations
        names, complete = _page(named, start, most)
        return _list(complete, [configuration_of(name, named[name]) for name in names])

    async def _get_configuration(self, internal: Any, _timeout: Any) -> Answer:
        name = _text_of(internal)
        configuration = self._space.products.configurations.get(name)
        found = (
            types.ConfigurationDataType() if configuration is None else configuration_of(name, configuration)
        )
        return [_HANDLE, ua.Variant(found, Kind.ExtensionObject), _error(configuration)]

    async def _activate(self, internal: Any) -> Answer:
        """Activate what is active anyway: which engine judges a product the line's config decides."""
        name = _text_of(internal)
        if name not in self._space.products.configurations:
            return [_number(Error.UNKNOWN)]
        active = name == (self._space.active or UNNAMED)
        return [_number(Error.NONE if active else Error.NOT_POSSIBLE)]


def _checked(
    method: Callable[..., Awaitable[Answer]], arguments: int
) -> Callable[..., Awaitable[Answer | ua.StatusCode]]:
    async def call(_parent: ua.NodeId, *given: ua.Variant) -> Answer | ua.StatusCode:
        if len(given) != arguments:
            few = len(given) < arguments
            return ua.StatusCode(codes.BadArgumentsMissing if few else codes.BadTooManyArguments)
        try:
            return await method(*(variant.Value for variant in given))
        except TypeError as error:
            _log.debug("opcua: %s", error)
            return ua.StatusCode(codes.BadInvalidArgument)

    return call


async def _not_executable(_parent: ua.NodeId, *_given: ua.Variant) -> ua.StatusCode:
    """Refuse: a line judges whatever comes; who stops it stops the belt."""
    return ua.StatusCode(codes.BadNotExecutable)


def _text_of(value: Any) -> str:
    """Give the text of an id; "" for none.

    Raises:
        TypeError: it is no id.
    """
    if value is None or (isinstance(value, ua.ExtensionObject) and value.TypeId == ua.NodeId()):
        return ""
    text = getattr(value, "Id", None)
    if text is not None and not isinstance(text, str):
        raise TypeError(f"found {text!r}, expected a text")
    if not hasattr(value, "Id"):
        raise TypeError(f"found {value!r}, expected an id")
    return text or ""


def _page(found: Any, start: Any, most: Any) -> tuple[list[Any], bool]:
    """Give a part of a list, and whether it is the last.

    Raises:
        TypeError: ``start`` or ``most`` is no number from 0 on.
    """
    if type(start) is not int or type(most) is not int or min(start, most) < 0:
        raise TypeError(f"found {start!r} and {most!r}, expected numbers")
    bound = min(most or _MOST_AT_ONCE, _MOST_AT_ONCE)
    part = list(itertools.islice(found, start, start + bound + 1))
    return part[:bound], len(part) <= bound


def _list(complete: bool, values: list[Any]) -> Answer:
    return [
        ua.Variant(complete, Kind.Boolean),
        ua.Variant(len(values), Kind.UInt32),
        _HANDLE,
        ua.Variant(values, Kind.ExtensionObject, is_array=True),
        _number(Error.NONE),
    ]


def _prepared(name: str, error: Error, *, completed: bool = True) -> Answer:
    return [
        ua.Variant(recipe_id(name, None), Kind.ExtensionObject),
        ua.Variant(completed and error is Error.NONE, Kind.Boolean),
        _number(error),
    ]


def _error(found: object) -> ua.Variant:
    return _number(Error.UNKNOWN if found is None else Error.NONE)


def _number(error: Error) -> ua.Variant:
    return ua.Variant(int(error), Kind.Int32)


_HANDLE: Final = ua.Variant(0, Kind.UInt32)
"""No handle: nothing is held for a client that it would have to release."""
