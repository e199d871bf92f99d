"""The tensors that a torch checkpoint's pickle describes, read opcode by opcode: nothing in it is ever run.

A small stack machine for the opcodes that `torch.save` writes (pickletools.py of CPython documents them; the calls
are those of torch/_utils.py). Anything else in the pickle is named, not called.
"""

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

LIMIT = 4 << 20
"""Bytes of a pickle that is read: a 65B LLaMA's has 200 kB."""
_STEPS = 150_000
"""Opcodes of a pickle: a tensor takes about 35, and a 65B LLaMA in GPTQ has 2,400."""
_DTYPES = {
    "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Double": "F64", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL",
}  # fmt: skip
STORAGES = {dtype: name for name, dtype in _DTYPES.items()}
"""Type → the class of torch that stores it, less "Storage"."""
_HARMLESS = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v[23]|parameter)|torch\.(storage\.)?_?[A-Z][A-Za-z0-9]*Storage|torch\.Size"
    r"|torch\.(device|strided|b?float\d+\w*|u?int\d+|bool)|torch\.serialization\._get_layout|collections\.OrderedDict"
    r"|_codecs\.encode|(builtins|__builtin__)\.(set|dict|list)|numpy\.(dtype|ndarray)"
    r"|numpy\._?core\.multiarray\.(_reconstruct|scalar)"
)
"""What torch.save writes of tensors and plain values; nothing of it is called here either."""
_MARK = object()


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the pickle describes it: elements from `offset` of the storage `key`, which has `stored` elements.

    `strides`, counted in elements, tell how far apart the neighbours along each axis lie.
    """

    dtype: str
    shape: tuple[int, ...]
    key: str
    offset: int
    stored: int
    strides: tuple[int, ...] = ()

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie row-major, one behind the other."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=False):
            if size > 1 and stride != step:
                return 0 in self.shape
            step *= size
        return len(self.strides) == len(self.shape)


@dataclass(frozen=True, slots=True)
class Pickled:
    """Tensors by name, whether the pickle is an empty dictionary, and the strange functions that it would call.

    `storages` are all that it names, key → (dtype, elements).
    """

    tensors: dict[str, Tensor]
    empty: bool
    strange: tuple[str, ...]
    storages: dict[str, tuple[str, int]]


@dataclass(slots=True)
class _Made:
    """What a call would make."""

    call: str


def read(file: io.BytesIO) -> Pickled:
    """Give what the next pickle in `file` holds. Raises ValueError for one that is damaged, or no checkpoint's."""
    machine = _run(file)
    top = machine.stack[-1]
    strange = tuple(sorted(call for call in machine.calls if not _HARMLESS.fullmatch(call)))
    return Pickled(_tensors(top), top == {} and isinstance(top, dict), strange, machine.storages)


def keys(file: io.BytesIO) -> list[str]:
    """Give the list of texts that the next pickle in `file` holds. Raises ValueError for anything else."""
    found = _run(file).stack[-1]
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise ValueError("keys")
    return found


def _run(file: io.BytesIO) -> "_Machine":
    machine = _Machine()
    try:
        for step, (opcode, argument, _at) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                break
            if step > _STEPS:
                raise ValueError("too long")
            machine.step(opcode.name, argument)
        if not machine.stack:
            raise ValueError("empty")
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return machine


def _tensors(top: Any) -> dict[str, Tensor]:
    """Give the tensors of a state dictionary, or of the one inside a training checkpoint."""
    if not isinstance(top, dict):
        return {}
    found = {str(name): value for name, value in top.items() if isinstance(value, Tensor)}
    inner = next((top[name] for name in ("state_dict", "model", "module") if isinstance(top.get(name), dict)), {})
    return found or {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}


class _Machine:
    """The stack and memo of the pickle protocol, with values that do nothing."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.calls: set[str] = set()
        self.storages: dict[str, tuple[str, int]] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self.stack.append(_LITERALS[name]() if argument is None else argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else int(argument)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[int(argument)])
        elif name == "GLOBAL":
            self.function(argument.replace(" ", "."))
        else:
            getattr(self, "do_" + name.lower())()

    def function(self, name: str) -> None:
        self.calls.add(name)
        self.stack.append(_Made(name))

    def marked(self) -> list[Any]:
        at = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def do_mark(self) -> None:
        self.stack.append(_MARK)

    def do_pop(self) -> None:
        self.stack.pop()

    def do_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.function(f"{module}.{name}")

    def do_tuple(self) -> None:
        self.stack.append(tuple(self.marked()))

    def do_tuple1(self) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def do_tuple2(self) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def do_tuple3(self) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def do_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.store([key, value])

    def do_setitems(self) -> None:
        self.store(self.marked())

    def store(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(target, dict) and isinstance(key, str | int):
                target[key] = value

    def do_append(self) -> None:
        value = self.stack.pop()
        if isinstance(self.stack[-1], list):
            self.stack[-1].append(value)

    def do_appends(self) -> None:
        items = self.marked()
        if isinstance(self.stack[-1], list):
            self.stack[-1] += items

    def do_build(self) -> None:
        self.stack.pop()

    def do_newobj(self) -> None:
        self.stack.pop()

    def do_binpersid(self) -> None:
        """A storage: ("storage", class, key, device, elements), before 1.6 with a view, which is None."""
        _word, kind, key, _device, count, *view = self.stack.pop()
        name: str = kind.call.rpartition(".")[2].removesuffix("Storage")
        storage = (_DTYPES.get(name, name), int(count))
        if any(view) or self.storages.setdefault(str(key), storage) != storage or not 0 <= storage[1] < 2**40:
            raise ValueError("storage")
        self.stack.append((storage[0], str(key), storage[1]))

    def do_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_CALLS.get(function.call, lambda *_any: _Made(function.call))(*arguments))


def _tensor(
    storage: tuple[str, str, int], offset: int, shape: tuple[int, ...], strides: tuple[int, ...] = (), *_rest: Any
) -> Tensor:
    dtype, key, stored = storage
    sizes, steps = tuple(map(int, shape)), tuple(map(int, strides))
    if len(sizes) > 8 or len(steps) > 8 or not all(0 <= size < 2**40 for size in (*sizes, *steps, offset)):
        raise ValueError("shape")
    return Tensor(dtype, sizes, key, offset, stored, steps)


def _typed(*arguments: Any) -> Tensor:
    """A tensor of a type that has no storage of its own, which torch._utils._rebuild_tensor_v3 names."""
    return replace(_tensor(*arguments[:4]), dtype=arguments[6].call)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda *_items: {},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed,
    "torch._utils._rebuild_parameter": lambda data, *_rest: data,
}
_IGNORED = frozenset({"PROTO", "FRAME"})
_LITERALS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "NONE": lambda: None, "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False, "EMPTY_SET": list,
    **dict.fromkeys(
        ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING", "INT",
         "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES",
         "BINBYTES8"), lambda: None,
    ),
}  # fmt: skip
