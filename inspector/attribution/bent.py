"""Change how a function is differentiated, wherever it is called: in a module, functionally, in place, any number of times.

Hooks on modules, Captum's way, miss ``F.relu``, refuse a module that is used twice, and run in an undefined order where
two of them meet at one tensor (ReLU, then MaxPool). A function mode sees every call of every function instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Back = Callable[[Tensor], Sequence[Tensor | None]]

_SAME = {
    "multiply": "mul",
    "true_divide": "div",
    "truediv": "div",
    "rmul": "mul",
    "imul": "mul",
    "rpow": "pow",
    "ipow": "pow",
}


class Bent(torch.autograd.Function):
    """``value`` forward; backward whatever ``back`` makes of the gradient, one per operand."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, back: Back, *operands: Tensor) -> Tensor:
        ctx.back = back
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, None, *ctx.back(gradients[0])


class Called:
    """One intercepted call: its name, its floating operands, and how to run it on others out of place."""

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name, self.in_place = plain_name(func, args, kwargs)
        self.places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point()]

    @property
    def operands(self) -> list[Tensor]:
        return [self.args[i] for i in self.places]

    def run(self, *operands: Tensor) -> Any:
        """The function of these operands, which are not written to."""
        args = list(self.args)
        for place, operand in zip(self.places, operands, strict=True):
            args[place] = operand.clone() if self.in_place else operand
        return self.func(*args, **self.kwargs)

    def answer(self, value: Tensor) -> Tensor:
        """What the caller gets: of an in-place function, its own first operand."""
        return self.args[0].copy_(value) if self.in_place else value


class Bending(TorchFunctionMode):
    """Sends every call of a function in ``rules`` to ``bend``; those in ``composites`` run as what they are made of."""

    def __init__(
        self, bend: Callable[[Called], Any], rules: Any, composites: dict[str, Callable[..., Any]] | None = None
    ) -> None:
        super().__init__()
        self.bend, self.rules, self.composites = bend, rules, composites or {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, in_place = plain_name(func, args, kwargs)
        if name in self.composites:
            with self:
                answer = self.composites[name](*args, **kwargs)
            if answer is not NotImplemented:
                return args[0].copy_(answer) if in_place else answer
        if name in self.rules:
            args, kwargs = (kwargs.pop("input"), *args) if "input" in kwargs else args, kwargs
            return self.bend(Called(func, args, kwargs))
        return func(*args, **kwargs)


def plain_name(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, bool]:
    """relu for relu, relu_, F.relu and Tensor.relu; and whether this call works in place."""
    name = str(getattr(func, "__name__", ""))
    special = name.startswith("__")
    in_place = (name.endswith("_") and not special) or name in ("__imul__", "__itruediv__", "__ipow__", "__idiv__")
    bare = name.strip("_")
    flag = kwargs.get("inplace", False) or (
        bare in ("relu", "relu6", "silu", "hardswish") and len(args) > 1 and args[1] is True
    )
    return _SAME.get(bare, bare), in_place or bool(flag)


def refuse_scripted(model: nn.Module) -> None:
    """TorchScript hides its functions, so that no rule of theirs can be changed."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{name or 'the model'} is scripted or traced, which hides the functions that would get new rules; take "
                "the model that it was made from, or integrated_gradients"
            )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters take no gradient inside, so that a tensor requires one exactly where it depends on what is explained."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
