"""A reader of pickles that can't run anything: an interpreter of the opcodes that make data.

A pickle is a program for a stack machine. `pickle.Unpickler` imports and calls what the program names; here names
stay names, the few that PyTorch's state dicts consist of are built by our own code, and any other is refused. The
opcodes are those of the standard library's `pickletools`, which documents them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

from gpucnn.serialization.refusal import WeightFileError

Builder = Callable[..., Any]


class Global:
    """A name that the pickle asks for, with what builds it if it is called."""

    def __init__(self, name: str, build: Builder | None) -> None:
        self.name, self.build = name, build


def ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    """collections.OrderedDict, which is pickled empty or, by Python 2, with its pairs."""
    ordered: dict[Any, Any] = {}
    _into(ordered, [key for key, _ in pairs], [value for _, value in pairs])
    return ordered


def counter(counts: Any) -> dict[Any, Any]:
    """collections.Counter, in which PyTorch's schedules keep their milestones, as a plain dict."""
    if not isinstance(counts, dict):
        raise WeightFileError("damaged pickle: a Counter of something else than counts")
    return counts


def size(sizes: Any) -> tuple[Any, ...]:
    """torch.Size, as a plain tuple."""
    if not isinstance(sizes, tuple):
        raise WeightFileError("damaged pickle: a Size that is no tuple")
    return sizes


def latin1(text: Any, encoding: Any) -> bytes:
    """_codecs.encode, as which protocol 2 pickles bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise WeightFileError("calls _codecs.encode for something else than bytes: refused")
    return text.encode("latin1")


def read(stream: IO[bytes], globals_: Mapping[str, Builder | None], persistent: Builder) -> Any:
    """The value of the pickle that `stream` is at; leaves the stream behind it.

    Args:
        globals_: what may be named, as "module.name": what builds it when called, None if it can't be called.
        persistent: makes what the pickle refers to by a persistent id.

    Raises:
        WeightFileError: another name, an opcode that makes anything but data, or a damaged pickle.
    """
    machine = _Machine(globals_, persistent)
    try:
        for opcode, argument, position in pickletools.genops(stream):
            machine.position = position or 0
            try:
                machine.step(opcode.name, argument)
            except (IndexError, KeyError, StopIteration, TypeError, AttributeError) as error:
                raise WeightFileError(f"damaged pickle: {opcode.name} at byte {position}: {error!r}") from error
    except WeightFileError:
        raise
    except (ValueError, Warning) as error:  # what pickletools says of bytes that are no pickle
        raise WeightFileError(f"damaged pickle: {error}") from error
    return machine.result


class _Mark:
    """Where on the stack a MARK was set."""


class _Machine:
    def __init__(self, globals_: Mapping[str, Builder | None], persistent: Builder) -> None:
        self.globals, self.persistent = globals_, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None
        self.position = self.consumed = 0

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in _NOTHING:
            raise WeightFileError(f"the pickle's opcode {opcode} makes more than tensors and plain containers: refused")

    def since_mark(self) -> list[Any]:
        start = next(index for index in reversed(range(len(self.stack))) if self.stack[index] is _Mark)
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def name(self, argument: str | None) -> None:
        """GLOBAL has "module name" with it; for STACK_GLOBAL both lie on the stack."""
        if argument is None:
            last, module = self.stack.pop(), self.stack.pop()
            if not (isinstance(last, str) and isinstance(module, str)):  # to print a nested tuple may take for ever
                raise WeightFileError("damaged pickle: a name that is no string")
            name = f"{module}.{last}"
        else:
            name = argument.replace(" ", ".", 1)
        if name not in self.globals:
            raise WeightFileError(
                f"names {name}, which makes neither a dense tensor nor a plain container: refused (the state_dict() of "
                "a network has none)"
            )
        self.stack.append(Global(name, self.globals[name]))

    def call(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function.build is None:
            raise WeightFileError(f"calls {function.name if isinstance(function, Global) else type(function).__name__}")
        # What is built is as long as what it is built from, which is in the file once: from a text that is taken from
        # the memo time and again, a short pickle could fill any memory.
        self.consumed += sum(len(part) for part in arguments[:1] if isinstance(part, (str, list)))
        if self.consumed > self.position:
            raise WeightFileError(f"damaged pickle: {function.name} is called with the same data over and over")
        self.stack.append(function.build(*arguments))

    def build(self, _: None) -> None:
        """What PyTorch hangs on an OrderedDict are version numbers of its modules: left out."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise WeightFileError(f"sets the state of a {type(self.stack[-1]).__name__}: refused")

    def append(self, _: None) -> None:
        value = self.stack.pop()
        self.stack[-1].append(value)

    def appends(self, _: None) -> None:
        values = self.since_mark()
        self.stack[-1].extend(values)

    def set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _into(self.stack[-1], [key], [value])

    def set_items(self, _: None) -> None:
        values = self.since_mark()
        _into(self.stack[-1], values[::2], values[1::2])

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def persistent_id(self, _: None) -> None:
        self.stack.append(self.persistent(self.stack.pop()))

    def tuple_since_mark(self, _: None) -> None:
        self.stack.append(tuple(self.since_mark()))

    def tuple1(self, _: None) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def tuple2(self, _: None) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def tuple3(self, _: None) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def stop(self, _: None) -> None:
        if len(self.stack) != 1:
            raise WeightFileError(f"damaged pickle: it ends with {len(self.stack)} values instead of one")
        (self.result,) = self.stack


def _into(container: Any, keys: list[Any], values: list[Any]) -> None:
    if not isinstance(container, dict):
        raise WeightFileError(f"damaged pickle: sets an item of a {type(container).__name__}")
    for key in keys:  # a nested tuple can be built so that hashing it takes for ever, and long integers of equal hash
        if not isinstance(key, (str, int, float, bytes, type(None))):
            raise WeightFileError(f"a dict has a {type(key).__name__} as a key: refused")
        if isinstance(key, int) and not -(2**63) <= key < 2**63:
            raise WeightFileError("a dict has an integer of more than 64 bits as a key: refused")
    container.update(zip(keys, values, strict=True))


_LITERALS = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _Mark,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "PUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GET": _Machine.get,
    "BINPERSID": _Machine.persistent_id,
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "STOP": _Machine.stop,
}
_NOTHING = {"PROTO", "FRAME"}
