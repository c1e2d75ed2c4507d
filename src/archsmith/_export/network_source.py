"""A network as the text of one plain PyTorch class: a line for each module, a line for each operation.

The network is traced by torch.fx, so what was nested comes out flat, loops unrolled and the architecture's own names
kept: `layers.3.conv` becomes `self.layers_3_conv`, and what a submodule computes is called after it.
"""

from __future__ import annotations

import builtins
import inspect
import keyword
import math
import operator
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from archsmith.core.errors import UsageError

WIDTH = 120
INPUT = "images"  # what forward calls its argument

_INFIX = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.floordiv: "//",
    operator.mod: "%", operator.pow: "**", operator.matmul: "@", operator.lt: "<", operator.le: "<=",
    operator.gt: ">", operator.ge: ">=", operator.eq: "==", operator.ne: "!=", operator.and_: "&", operator.or_: "|",
}  # fmt: skip
_HOMES: tuple[tuple[str, Any], ...] = (("F", F), ("torch", torch), ("math", math))


class SourceRefused(UsageError):
    """A network that format source cannot write; the other formats may."""


def network_source(
    module: nn.Module, docstring: str, class_name: str = "Network", root: str = ""
) -> tuple[str, dict[str, Any]]:
    """The class that computes what `module` does in evaluation, and the tensors that its `load_state_dict` takes.

    `root` is the path of a submodule whose name is left out of all names. The text needs `torch`, `nn` and `F` in
    scope. Raises SourceRefused when the network is not made of PyTorch's own modules and functions alone, or when its
    forward pass branches on the values it computes.
    """
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:
        raise SourceRefused(
            f"format source cannot follow the forward pass of {type(module).__name__}: {error}. "
            "It must not branch on the values or shapes of tensors; format onnx may do"
        ) from error
    writer = _Writer(module, graph, root)
    return writer.text(docstring, class_name), writer.state


@dataclass
class _Writer:
    """Walks the traced graph once; collects the lines of `__init__` and `forward`, and the state."""

    module: nn.Module
    graph: fx.Graph
    root: str
    state: dict[str, Any] = field(default_factory=dict, init=False)
    _attributes: dict[str, str] = field(default_factory=dict, init=False)  # path in the module -> name in the class
    _init: list[str] = field(default_factory=list, init=False)
    _forward: list[str] = field(default_factory=list, init=False)
    _value: dict[fx.Node, str] = field(default_factory=dict, init=False)
    _holder: dict[str, fx.Node] = field(default_factory=dict, init=False)  # variable -> whose value it holds

    def text(self, docstring: str, class_name: str) -> str:
        nodes = list(self.graph.nodes)
        position = {node: i for i, node in enumerate(nodes)}
        self._last_use = {n: max((position[user] for user in n.users), default=position[n]) for n in nodes}
        for i, node in enumerate(nodes):
            self._write(node, i)
        body = [f"class {class_name}(nn.Module):", *_docstring(docstring), ""]
        body += ["    def __init__(self) -> None:", "        super().__init__()", *_indented(self._init), ""]
        body += [f"    def forward(self, {INPUT}: torch.Tensor) -> torch.Tensor:", *_indented(self._forward)]
        return "\n".join(body) + "\n"

    def _write(self, node: fx.Node, i: int) -> None:
        if node.op == "placeholder":
            if self._value:
                raise SourceRefused("format source needs a network with one input; this one has several")
            self._value[node] = INPUT
            self._holder[INPUT] = node
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise SourceRefused("format source needs a network with one tensor as its output; this one has several")
            self._forward.append(f"return {self._value[node.args[0]]}")
        elif node.op == "get_attr":
            self._value[node] = f"self.{self._tensor(str(node.target))}"
        else:
            self._operation(node, i)

    def _operation(self, node: fx.Node, i: int) -> None:
        arguments = [self._constant(a) for a in node.args]
        keywords = {k: self._constant(v) for k, v in node.kwargs.items()}
        if node.op == "call_module":
            head = f"self.{self._module(str(node.target))}"
        elif node.op == "call_method":
            head = f"{arguments.pop(0)}.{node.target}"
        else:
            assert callable(node.target)
            expression = _expression(node.target, arguments)
            if expression is not None:
                if node.users:
                    self._forward.append(f"{self._variable(node, i)} = {expression}")
                return
            head = _function_name(node.target)
            given = {k: v for k, v in node.kwargs.items() if not _is_default(node.target, k, v)}
            keywords = {k: v for k, v in keywords.items() if k in given}
        listed = [*arguments, *(f"{k}={v}" for k, v in keywords.items())]
        # The arguments are read before the name is taken: it may be one of theirs. A result that nothing uses may be a
        # change in place, so the call stays.
        taken = f"{self._variable(node, i)} = " if node.users else ""
        self._forward.extend(_wrapped(f"{taken}{head}", listed))

    def _variable(self, node: fx.Node, i: int) -> str:
        """A name for a node's value: its submodule's, unless that holds a value which is still needed.

        A value made beside one of its own submodule that is needed later, as a mean is beside what it is the mean of,
        goes by the operation's name; so does what is then made of it alone.
        """
        owner = self._owner(node)
        mine = [a for a in node.all_input_nodes if a.op != "get_attr" and self._owner(a) == owner]
        other = _identifier(node.name.removeprefix(f"{self.root}_"))
        preferred = self._named(owner)
        if any(self._last_use[a] > i for a in mine):
            preferred = other
        elif len(mine) == 1 and mine[0].op != "placeholder":
            preferred = self._value[mine[0]]
        for name in (preferred, other, *(f"{other}_{k}" for k in range(2, 1000))):
            if name == INPUT or name in _IN_SCOPE:
                continue
            if name not in self._holder or self._last_use[self._holder[name]] <= i:
                self._value[node] = name
                self._holder[name] = node
                return name
        raise AssertionError("a thousand values of one name")

    def _owner(self, node: fx.Node) -> str:
        """The path of the submodule whose forward pass the node is part of; "" and the root are one."""
        stack = list(node.meta.get("nn_module_stack", {}))
        if node.op == "call_module":
            stack = stack[:-1]
        return stack[-1] if stack and stack[-1] != self.root else ""

    def _constant(self, value: Any) -> str:
        """An argument as Python text."""
        if isinstance(value, fx.Node):
            return self._value[value]
        if isinstance(value, tuple):
            return "(" + ", ".join(map(self._constant, value)) + ("," if len(value) == 1 else "") + ")"
        if isinstance(value, list):
            return "[" + ", ".join(map(self._constant, value)) + "]"
        if isinstance(value, slice):  # only ever inside an index
            ends = ["" if part is None else self._constant(part) for part in (value.start, value.stop, value.step)]
            return ":".join(ends[: 2 if value.step is None else 3])
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if value is Ellipsis:
            return "..."
        if isinstance(value, str):
            return _quoted(value)
        if isinstance(value, bool | int | float | type(None) | torch.dtype | torch.memory_format):
            return repr(value)
        if isinstance(value, torch.device):
            return f'torch.device("{value}")'
        raise SourceRefused(f"format source cannot write {value!r} ({type(value).__name__}) as an argument")

    def _module(self, path: str) -> str:
        if path not in self._attributes:
            name = self._attribute(path)
            module = self.module.get_submodule(path)
            self._init.extend(_constructor(f"self.{name} = ", module, path))
            self.state |= {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
        return self._attributes[path]

    def _tensor(self, path: str) -> str:
        if path not in self._attributes:
            owner, _, last = path.rpartition(".")
            tensor = getattr(self.module.get_submodule(owner), last)
            if not isinstance(tensor, torch.Tensor):
                raise SourceRefused(
                    f"format source cannot write {path}, a {type(tensor).__name__}; it must be a tensor"
                )
            name = self._attribute(path)
            dtype = "" if tensor.dtype is torch.float32 else f", dtype={tensor.dtype}"
            empty = f"torch.empty({', '.join(map(str, tensor.shape)) or '()'}{dtype})"
            parameter = isinstance(tensor, nn.Parameter)
            line = f"self.{name} = nn.Parameter({empty})" if parameter else f'self.register_buffer("{name}", {empty})'
            self._init.append(line)
            self.state[name] = tensor.detach()
        return self._attributes[path]

    def _named(self, path: str) -> str:
        return _identifier(path.removeprefix(f"{self.root}."))

    def _attribute(self, path: str) -> str:
        name = stem = self._named(path)
        taken, k = set(self._attributes.values()), 1
        while name in taken or hasattr(nn.Module, name) or name in _MODULE_ATTRIBUTES:
            k += 1
            name = f"{stem}_{k}"
        self._attributes[path] = name
        return name


_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # training, _parameters, ...
_IN_SCOPE = frozenset({"torch", "nn", "F", "math", "self"}) | frozenset(dir(builtins))


def _constructor(head: str, module: nn.Module, path: str) -> list[str]:
    """The lines that make a module like this one. Checked by making it."""
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        raise SourceRefused(
            f"format source knows the modules of torch.nn, and {path} is a {kind.__module__}.{kind.__qualname__}"
        )
    for shorten in (True, False):  # 3 for (3, 3) reads better, where it makes the same module
        arguments = _arguments(module, shorten)
        try:
            made = eval(f"nn.{kind.__name__}({', '.join(arguments)})", {"nn": nn, "__builtins__": {}})
        except Exception:
            continue
        # extra_repr holds all that the constructor of a torch module was told.
        if repr(made) == repr(module) and _shapes(made) == _shapes(module):
            return _wrapped(f"{head}nn.{kind.__name__}", arguments)
    raise SourceRefused(f"format source cannot write how to make {path}, a {module!r}")


def _arguments(module: nn.Module, shorten: bool) -> list[str]:
    """What a module's constructor was told, read back from the attributes of the same names."""
    arguments: list[str] = []
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name in ("device", "dtype") or not hasattr(module, name):
            continue
        value = getattr(module, name)
        if isinstance(parameter.default, bool) and not isinstance(value, bool):
            value = value is not None  # bias=True: the attribute is the tensor, or None
        if shorten and isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if parameter.default is not inspect.Parameter.empty and value == parameter.default:
            continue
        text = _quoted(value) if isinstance(value, str) else repr(value)
        arguments.append(text if parameter.default is inspect.Parameter.empty else f"{name}={text}")
    return arguments


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, t.shape, t.dtype) for name, t in module.state_dict().items()]


def _expression(function: Callable[..., Any], arguments: list[str]) -> str | None:
    """An operator between its operands, or None when the function is called by its name."""
    if function in _INFIX and len(arguments) == 2:
        left, right = (f"({a})" if a.startswith("-") else a for a in arguments)
        return f"{left} {_INFIX[function]} {right}"
    if function is operator.neg:
        return f"-{arguments[0]}"
    if function is operator.getitem:
        index = arguments[1]
        return f"{arguments[0]}[{index[1:-1] if index.startswith('(') and index != '()' else index}]"
    if function is getattr:
        return f"{arguments[0]}.{arguments[1][1:-1]}"
    return None


def _function_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    for home, namespace in _HOMES:
        if getattr(namespace, name, None) is function:
            return f"{home}.{name}"
    for public, candidate in vars(F).items():  # F.max_pool2d and its like are functions called "fn"
        if candidate is function and not public.startswith("_"):
            return f"F.{public}"
    module = getattr(function, "__module__", "?")
    raise SourceRefused(f"format source knows the functions of torch, and this network calls {module}.{name}")


def _is_default(function: Callable[..., Any], name: str, value: Any) -> bool:
    """Whether a keyword says what the function would do anyway; F's own record every default they were given."""
    public = _function_name(function).rpartition(".")[2]
    for candidate in (function, getattr(F, f"_{public}", None)):
        try:
            default = inspect.signature(candidate).parameters[name].default  # type: ignore[arg-type]
        except (TypeError, ValueError, KeyError):
            continue
        return type(default) is type(value) and bool(default == value)
    return False


def _identifier(path: str) -> str:
    name = path.replace(".", "_").lstrip("_") or "x"
    if name[0].isdigit():
        name = f"layer_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text.isprintable() else repr(text)


def _wrapped(head: str, arguments: Iterable[str]) -> list[str]:
    """A call on one line, or its arguments on lines of their own where one is too long."""
    inside = ", ".join(arguments)
    if 8 + len(head) + len(inside) + 2 <= WIDTH:
        return [f"{head}({inside})"]
    lines = textwrap.wrap(inside, WIDTH - 12, break_long_words=False, break_on_hyphens=False)
    return [f"{head}(", *(f"    {line}" for line in lines), ")"]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"        {line}" for line in lines]


def _docstring(text: str) -> list[str]:
    lines = text.replace("\\", "\\\\").replace('"""', "'''").splitlines()
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return [f'    """{lines[0]}', *(f"    {line}".rstrip() for line in lines[1:]), '    """']
