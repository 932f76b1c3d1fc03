"""Read a pickle without executing it.

A pickle is a program: it names functions, and loading calls them. The checkpoints of other projects
come as pickles that refer to classes of those projects. Here such a program is *read*, not run: it
is walked one instruction at a time, and the only things that ever come out are plain values
(numbers, strings, lists, tuples, dicts, sets), descriptions of tensors, and `Foreign`, an inert
record of "here the pickle names that class, or calls it with these arguments". Nothing is imported
and nothing is called, so there is nothing to be tricked into. A short program can still describe
much, since it may take the same value a second time: whatever costs more than the instruction that
asks for it is bounded (`MAX_STEPS`, `MAX_TEXT`).
"""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass, field
from typing import Any

MAX_STEPS = 2_000_000
"""Instructions of a program, and items that they copy; a checkpoint of 1,000 tensors has 32,000."""
MAX_TEXT = 1_000
"""Characters of a name or of a key."""
_MAX_PARTS = 64
"""Parts of a key, dimensions of a tensor."""
_MAX_SIZE = 2**48

_DTYPES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}


@dataclass(eq=False, slots=True)
class Foreign:
    """A class, function or object that the pickle names; never imported, never called.

    Attributes
    ----------
    name
        Full name, such as ``"model.configuration_hyena.HyenaConfig"``.
    args
        Arguments of the call that the pickle asks for; None where it names without calling.
    state
        Attributes that the pickle sets, as far as it sets them by a dict.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.name) > MAX_TEXT:
            raise ValueError(f"a name of {len(self.name):,} characters")


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """A run of numbers beside the pickle that tensors are views of.

    Attributes
    ----------
    key
        Name of the run.
    dtype
        Name of the torch type, such as ``"float32"``.
    itemsize
        Bytes of one number.
    size
        Numbers in it.
    """

    key: str
    dtype: str
    itemsize: int
    size: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """What the pickle says of a tensor: a view of a storage, checked to lie within it.

    Attributes
    ----------
    storage
        Where the numbers are.
    offset
        First number.
    shape, stride
        In numbers, not bytes.
    """

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark:
    """Where a run of arguments starts."""


_MARK = _Mark()
_CONSTANTS = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (),
}  # fmt: skip
_LITERALS = frozenset(
    {
        "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
        "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip
_IGNORED = frozenset({"PROTO", "FRAME"})


def read_pickle(program: bytes, names: set[str] | None = None) -> Any:
    """Return what a pickle describes, as plain values, `TensorRecord` and `Foreign`.

    Parameters
    ----------
    program
        The pickle, protocol 0 to 5.
    names
        Gets the full name of everything that the pickle would have imported.

    Raises
    ------
    ValueError
        If it is damaged, or does what no checkpoint does; the message says what.
    """
    try:
        return _Walker(names if names is not None else set()).walk(program)
    # A damaged program: too little on the stack, a memo entry that is not there, a wrong type.
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a damaged pickle ({error})") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("more than fits into memory, or nested too deeply") from error


class _Walker:
    """Walks a pickle program; one method an instruction that does something."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def count(self, steps: int) -> None:
        """Refuse a program that asks for more work than any checkpoint does."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS:,} steps")

    def walk(self, program: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(program)):
            self.count(1)
            name = opcode.name
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name == "STOP":
                return self.stack.pop()
            elif name not in _IGNORED:
                step = getattr(self, f"do_{name.lower()}", None)
                if step is None:
                    raise ValueError(f"the pickle instruction {name}")
                step(argument)
        raise ValueError("a pickle without an end")

    def since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    # Containers

    def do_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def do_empty_list(self, _: Any) -> None:
        self.stack.append([])

    def do_empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def do_empty_set(self, _: Any) -> None:
        self.stack.append(set())

    def do_list(self, _: Any) -> None:
        self.stack.append(self.since_mark())

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def do_tuple1(self, _: Any) -> None:
        self.stack.append((self.stack.pop(),))

    def do_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def do_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def do_dict(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append({})
        self._set_items(items)

    def do_frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(_key(item) for item in self.since_mark()))

    def do_append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def do_appends(self, _: Any) -> None:
        self._extend(self.since_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def do_additems(self, _: Any) -> None:
        items = self.since_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(_key(item) for item in items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def do_setitems(self, _: Any) -> None:
        self._set_items(self.since_mark())

    def _set_items(self, items: list[Any]) -> None:
        # Items of a foreign mapping are dropped with it.
        if isinstance(self.stack[-1], dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                self.stack[-1][_key(key)] = value

    # The stack and the memo

    def do_pop(self, _: Any) -> None:
        self.stack.pop()

    def do_pop_mark(self, _: Any) -> None:
        self.since_mark()

    def do_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def do_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    do_binget = do_long_binget = do_get

    # What a pickle module would import and call; here it is written down.

    def foreign(self, name: str, args: tuple[Any, ...] | None = None) -> None:
        self.stack.append(Foreign(name, args))
        self.names.add(name)

    def do_global(self, names: str) -> None:
        self.foreign(names.replace(" ", "."))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self.foreign(f"{module}.{name}")

    def do_reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(function, arguments))

    do_newobj = do_reduce

    def do_newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self.do_reduce(None)

    def do_inst(self, names: str) -> None:
        self.foreign(names.replace(" ", "."), tuple(self.since_mark()))

    def do_obj(self, _: Any) -> None:
        function, *arguments = self.since_mark()
        self.stack.append(_made(function, tuple(arguments)))

    def do_build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Foreign) and isinstance(state, dict):
            self.count(len(state))
            self.stack[-1].state.update(state)

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(_storage(self.stack.pop()))


def _key(key: Any) -> Any:
    """Let through what hashes and compares cheaply (nested tuples could exhaust the C stack)."""
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > _MAX_PARTS:
        raise ValueError(f"a dict key or set item of {len(parts):,} parts")
    for part in parts:
        if not isinstance(part, str | bytes | int | float | None | Foreign):
            raise ValueError(f"a dict key or set item of type {type(part).__name__}")
        if isinstance(part, str | bytes) and len(part) > MAX_TEXT:
            raise ValueError(f"a dict key or set item of {len(part):,} characters")
        if isinstance(part, int) and part.bit_length() > 64:
            raise ValueError("a dict key or set item of more than 64 bits")
    return key


def _made(function: Any, arguments: Any) -> Any:
    """Write down a call: as a tensor, as an empty ordered dict, else as an inert record."""
    if not isinstance(function, Foreign) or not isinstance(arguments, tuple):
        raise ValueError("a call of something that is not a name")
    if function.name == "torch._utils._rebuild_tensor_v2" and len(arguments) >= 4:
        storage, offset, shape, stride = arguments[:4]
        if isinstance(storage, StorageRecord):
            return _tensor(storage, offset, shape, stride)
    if function.name == "torch._utils._rebuild_parameter" and arguments:
        return arguments[0]
    if function.name == "collections.OrderedDict" and arguments == ():
        return {}
    return Foreign(function.name, arguments)


def _storage(identifier: Any) -> StorageRecord | Foreign:
    """Read a persistent id: storages are what `torch.save` keeps outside of the pickle."""
    if not (isinstance(identifier, tuple) and len(identifier) == 5 and identifier[0] == "storage"):
        raise ValueError("a persistent id that is no storage")
    _, kind, key, _, size = identifier
    name = kind.name.removeprefix("torch.") if isinstance(kind, Foreign) else ""
    if name not in _DTYPES:
        return Foreign(f"storage of {name or type(kind).__name__}")
    if not isinstance(key, str) or len(key) > MAX_TEXT:
        raise ValueError("a storage without a key")
    if not isinstance(size, int) or not 0 <= size < _MAX_SIZE:
        raise ValueError("a storage without a size")
    dtype, itemsize = _DTYPES[name]
    return StorageRecord(key, dtype, itemsize, size)


def _tensor(storage: StorageRecord, offset: Any, shape: Any, stride: Any) -> TensorRecord:
    """Check that a tensor lies within its storage and is no larger than it."""
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or len(shape) != len(stride):
        raise ValueError("a tensor whose shape does not fit its stride")
    if len(shape) > _MAX_PARTS:
        raise ValueError(f"a tensor of {len(shape):,} dimensions")
    if not all(type(n) is int and 0 <= n < _MAX_SIZE for n in (offset, *shape, *stride)):
        raise ValueError("a tensor whose shape is not made of sizes")
    n_values = math.prod(shape)
    reach = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
    if n_values and max(n_values, reach) > storage.size:
        raise ValueError("a tensor larger than its storage")
    # An empty tensor reaches nowhere, and torch still multiplies its other sizes.
    if math.prod(filter(None, shape)) >= _MAX_SIZE:
        raise ValueError("a tensor whose shape is not made of sizes")
    return TensorRecord(storage, offset, shape, stride)
