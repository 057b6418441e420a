"""Reads files that torch.save wrote, of whatever classes, and executes nothing of them.

torch.load with ``weights_only=True`` refuses files in which classes of other packages stand, as Lightning's
checkpoints and whole pickled modules have them. Here such a class becomes a ``Record``: its name, and what it
was to be made with. No code of the file's choosing is imported or called.
"""

import pickle
import pickletools
import zipfile
from collections import OrderedDict, deque
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from foundation.errors import InputError

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}
_MOST_NODES, _DEEPEST = 20_000, 100
"""Of a state dict or of modules; what refers to itself has no end."""
_REBUILD = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_REBUILD_PARAMETER = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)


class Record:
    """What a pickle would have made by calling a class or a function; here nothing is called."""

    pickled_as: ClassVar[str] = ""
    arguments: tuple[object, ...]
    state: object
    items: dict[object, object]

    def __new__(cls, *arguments: object, **_: object) -> "Record":
        made = object.__new__(cls)
        made.arguments, made.state, made.items = arguments, None, {}
        return made

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *arguments: object, **_: object) -> "Record":
        return Record(*arguments)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items[key] = value

    def append(self, value: object) -> None:
        """Take an item of a list of another class."""

    def extend(self, values: object) -> None:
        """Take items of a list of another class."""

    def add(self, value: object) -> None:
        """Take an item of a set of another class."""

    def attributes(self) -> dict[Any, Any]:
        """Give what the object was to have: its items, if it was a dict, and its attributes."""
        return self.items | (self.state if isinstance(self.state, dict) else {})


class _Storage(NamedTuple):
    """Of a tensor: which entry of the file holds its values."""

    type: torch.dtype
    key: str


class _Unpickler(pickle.Unpickler):
    """Makes records."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type("Record", (Record,), {"pickled_as": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> object:
        _, kind, key, *_ = pid
        named = kind.pickled_as.rsplit(".", 1)[-1]
        return _Storage(_STORAGES[named], str(key)) if named in _STORAGES else None


class TorchFile:
    """The content of a file of torch.save.

    Args:
        path: the file.

    Raises:
        InputError: it cannot be read, is not such a file, or is damaged.
    """

    content: object

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = _entries(archive, path.stat().st_size)
            pickled = self._entries.pop("data.pkl")
            _check_memo(pickled)
            self.content = _Unpickler(BytesIO(pickled)).load()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # a damaged pickle raises whatever it likes
            raise InputError(f"{path}: is not a file that torch.save wrote, or a damaged one") from error

    def tensors(self, within: object) -> dict[str, Tensor]:
        """Give the tensors of a state dict or of pickled modules by the names that a state dict gives them.

        Raises:
            InputError: the values of one are missing, or there is no end to them.
        """
        found: dict[str, Record] = {}
        waiting: deque[tuple[tuple[str, ...], object]] = deque([((), within)])
        for _ in range(_MOST_NODES):
            if not waiting:
                return {name: self._tensor(name, record) for name, record in found.items()}
            path, node = waiting.popleft()
            if len(path) > _DEEPEST:
                break
            if isinstance(node, Record) and node.pickled_as in _REBUILD:
                found[".".join(path)] = node
            elif isinstance(node, Record) and node.pickled_as in _REBUILD_PARAMETER:
                waiting += [(path, value) for value in node.arguments[:1]]
            elif isinstance(node, Record):
                parts = ("_parameters", "_buffers", "_modules")
                waiting += [(path, node.attributes().get(part)) for part in parts]
            elif isinstance(node, dict):
                waiting += [((*path, str(key)), value) for key, value in node.items()]
        raise InputError(f"{self._path}: holds objects within objects without end; expected one model")

    def _tensor(self, name: str, record: Record) -> Tensor:
        try:
            storage, offset, size, stride = record.arguments[:4]
            assert isinstance(storage, _Storage)
            values = torch.frombuffer(bytearray(self._entries[f"data/{storage.key}"]), dtype=storage.type)
            return torch.as_strided(values, size, stride, offset)  # type: ignore[arg-type]
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{self._path}: the values of {name} are missing or damaged") from error


def _check_memo(pickled: bytes) -> None:
    """Refuse what would fill the memory: a place in the list of what was met, far beyond all there is.

    Raises:
        ValueError: there is such a place, or the pickle is cut short.
    """
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in {"PUT", "LONG_BINPUT"} and (argument or 0) > len(pickled):
            raise ValueError(operation.name)


def walk(within: object) -> Iterator[object]:
    """Give all that a file's content is made of, once each, what lies least deep first."""
    waiting, seen = deque([within]), set[int]()
    while waiting:
        node = waiting.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, Record):
            waiting += [node.items, node.state, *node.arguments]
        elif isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, (list, tuple)):
            waiting += node


def find(within: object, name: str) -> object:
    """Find a text, a number or a sequence by the name under which a dict or an object holds it.

    Returns:
        The one that lies least deep; None where there is none.
    """
    values = (_plain(node.get(name)) for node in walk(within) if isinstance(node, dict))
    return next((value for value in values if value is not None), None)


def _plain(value: object) -> object:
    """Give a value, or that which OmegaConf or an enumeration has wrapped."""
    if isinstance(value, Record):
        attributes = value.attributes()
        if isinstance(listed := attributes.get("_content"), list):
            return [_plain(part) for part in listed]
        value = attributes.get("_val", value.arguments[0] if len(value.arguments) == 1 else None)
    return value if isinstance(value, (str, bool, int, list, tuple)) else None


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, bytes]:
    """Read the entries, without the folder in which all of them lie.

    Raises:
        ValueError: they would be more than the file.
    """
    if sum(entry.file_size for entry in archive.infolist()) > size:
        raise ValueError("entries overlap")
    found = {}
    for entry in archive.infolist():
        # torch stores them; what is compressed might not fit into memory.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(entry.filename)
        _, _, name = entry.filename.partition("/")
        if name == "data.pkl" or name.startswith("data/"):
            found[name] = archive.read(entry)
    return found
