"""Any activation function as a module, and networks in which every ReLU is replaced by one.

Ramachandran, Zoph and Le (2017, "Searching for Activation Functions"). The formula is computed by torch's own functions, one
after the other, and its derivative comes from autograd; `compile=True` makes one kernel of each by torch.compile.
benchmarks/results/activations.md has what both cost beside torch's ReLU and SiLU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from archsmith.core.errors import UsageError
from archsmith.core.expression import Expression
from archsmith.core.shown import shown
from archsmith.nn.activation_language import ACTIVATIONS, count_betas, is_constant

M = TypeVar("M", bound=nn.Module)


def source_of(expression: Expression, name: str = "activation") -> str:
    """The formula as a Python function of x and of its betas, in the order in which they are computed."""
    lines, result = ACTIVATIONS.statements(expression)
    names = beta_names(expression)
    turn = iter(names)
    # A line computes one symbol, and a symbol has one beta at most.
    lines = [line.replace("beta", next(turn)) if "beta" in line else line for line in lines]
    body = "".join(f"    {line}\n" for line in [*lines, f"return {result}"])
    return f"def {name}({', '.join(['x', *names])}):\n{body}"


def beta_names(expression: Expression) -> list[str]:
    """What its betas are called: "beta", or "beta_0", "beta_1", ... where there are several."""
    count = count_betas(expression)
    return ["beta"] if count == 1 else [f"beta_{i}" for i in range(count)]


class ActivationFunction(nn.Module):
    """An activation function of `ACTIVATIONS`, by its simplified form.

    It may give NaN or infinity, and whoever watches the loss sees it. Its betas are trained with the network's weights.

    Args:
        expression: the function, or its text, such as "x * sigmoid(beta * x)".
        channels: how many channels have betas of their own. None: all share one of each.
        dims: dimensions behind the channels: 2 of maps, 0 of features. None: as the input has; then torch.fx cannot trace it.
        beta: what the betas are at first.
        trainable: whether the betas are parameters; otherwise they are buffers.
        compile: whether it is compiled by `torch.compile`, which needs a compiler and takes some seconds at first use.

    Raises IllegalExpression for what is no function of the language, and UsageError for one that is the same for every x,
    or settings out of range.
    """

    def __init__(
        self,
        expression: Expression | str,
        channels: int | None = None,
        *,
        dims: int | None = None,
        beta: float = 1.0,
        trainable: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        for name, given, least in (("channels", channels, 1), ("dims", dims, 0)):
            whole = isinstance(given, int) and not isinstance(given, bool)
            if given is not None and not (whole and given >= least):
                raise UsageError(
                    f"{name} of an activation must be a whole number of at least {least}, got {shown(given)}"
                )
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not abs(beta) < float("inf"):
            raise UsageError(f"beta of an activation must be a finite number, got {shown(beta)}")
        written = expression.to_json() if isinstance(expression, Expression) else None
        read = ACTIVATIONS.parse(expression) if isinstance(expression, str) else ACTIVATIONS.from_json(written)
        if is_constant(read):
            raise UsageError(f"the activation {ACTIVATIONS.show(read)} is the same for every x, so it is of no use")
        self.expression = ACTIVATIONS.simplify(read)
        self.channels, self.dims, self._compile = channels, dims, compile
        self._names = beta_names(self.expression)
        for name in self._names:
            value = torch.full((channels or 1,), float(beta))
            if trainable:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self._function = self._made()

    @property
    def formula(self) -> str:
        """The function as text."""
        return ACTIVATIONS.show(self.expression)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, ...] or [n, features] -> the same shape. Raises UsageError where the channels are not as many."""
        return self._function(x, *self._betas(x)) if self._names else self._function(x)

    def _betas(self, x: Tensor) -> list[Tensor]:
        dims = self.dims
        if self.channels is None:
            dims = 0
        elif dims is None:
            if x.dim() < 2 or x.shape[1] != self.channels:
                raise UsageError(
                    f"this activation has betas for {self.channels} channels, [n, {self.channels}, ...], and the input "
                    f"is {list(x.shape)}"
                )
            dims = x.dim() - 2
        betas = [getattr(self, name) for name in self._names]
        if dims:
            betas = [beta.view(-1, *[1] * dims) for beta in betas]
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):  # or bf16 maps became fp32 ones
            betas = [beta.to(x.dtype) for beta in betas]
        return betas

    def _made(self) -> Callable[..., Tensor]:
        scope: dict[str, Any] = {"torch": torch}
        exec(source_of(self.expression), scope)  # text of the language's own symbols and of numbers, of nothing else
        function: Callable[..., Tensor] = scope["activation"]
        return torch.compile(function, dynamic=True) if self._compile else function

    def extra_repr(self) -> str:
        return self.formula + (f", channels={self.channels}" if self.channels is not None and self._names else "")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_function"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._function = self._made()


class _Whole(nn.Module):
    """A model with all of it run through, the auxiliary head of its training too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """The logits; with an auxiliary head, its as well."""
        return getattr(self.model, "forward_with_auxiliary", self.model)(images)


def with_activation(model: M, make: Callable[[int, int], nn.Module], input_shape: tuple[int, ...]) -> M:
    """The model with a fresh activation in place of every `nn.ReLU` that a forward pass meets; changed in place.

    Each is made with the channels it sees. A module that is used several times is replaced by one, used as often. What a
    model calls as a function (torch.relu) is no module, and stays.

    Args:
        model: any model of images; it stands in training or evaluation mode as before.
        make: from channels, and the dimensions behind them (2 of maps, 0 of features), to the activation.
        input_shape: of one input: channels, height, width.

    Raises UsageError for a model without such a module, one that uses one for several numbers of channels, and one that
    cannot take such an input.
    """
    places = {
        name: module for name, module in model.named_modules(remove_duplicate=False) if name and type(module) is nn.ReLU
    }
    seen: dict[nn.Module, set[tuple[int, int]]] = {}

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        shape = given[0].shape
        if len(shape) < 2:
            raise UsageError(f"an activation needs [n, channels, ...], and a ReLU of this model is given {list(shape)}")
        seen.setdefault(module, set()).add((shape[1], len(shape) - 2))

    hooks = [module.register_forward_pre_hook(look) for module in set(places.values())]
    modes = {module: module.training for module in model.modules()}
    # The shapes are found without computing anything, and with batch norms as in evaluation, which leave their averages.
    whole = _Whole(model)
    tensors = {name: t.detach().to("meta") for name, t in [*whole.named_parameters(), *whole.named_buffers()]}
    try:
        model.eval()
        with torch.no_grad():
            torch.func.functional_call(whole, tensors, (torch.zeros(1, *input_shape, device="meta"),))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{type(model).__name__} cannot take an input of {list(input_shape)}, so nothing is known of its activations: "
            f"{error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    if not seen:
        raise UsageError(
            f"{type(model).__name__} has no nn.ReLU that its forward pass meets, so there is no activation to replace; "
            "what it calls as a function cannot be"
        )
    made: dict[nn.Module, nn.Module] = {}
    for name, module in places.items():
        if module not in seen:
            continue
        if len(seen[module]) > 1:
            raise UsageError(
                f"the ReLU {name} of {type(model).__name__} is used for several shapes ({sorted(seen[module])}); "
                "give the model one for each"
            )
        if module not in made:
            made[module] = make(*next(iter(seen[module])))
            made[module].train(module.training)
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, made[module])
    return model
