"""DeepLift's rules (Shrikumar et al. 2017), for every function that has one, in or out of a module.

The baseline runs first and is written down call by call; the input then runs in step with it, so that each nonlinear
call knows both its operands. Products of two things that both change are split at the midpoint, which is exact, and
fused layers (attention, LSTM, norms) run as what they are made of; so the contributions add up on those too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspector.attribution.bent import Back, Bending, Bent, Called
from inspector.attribution.composites import COMPOSITES
from inspector.tensors import shape_text

Rule = Callable[[Called, Sequence[Tensor], Sequence[Tensor], Tensor, Tensor], Back]


class Step(NamedTuple):
    """What one call did on the baseline."""

    name: str
    operands: list[Tensor]
    output: Tensor


class Lockstep:
    """``with steps.baseline(): run`` and then ``with steps.input(): run`` the same model."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.next = 0

    @contextmanager
    def baseline(self) -> Iterator[None]:
        with torch.no_grad(), Bending(self._note, RULES, COMPOSITES):
            yield

    @contextmanager
    def input(self) -> Iterator[None]:
        self.next = 0
        with Bending(self._follow, RULES, COMPOSITES):
            yield

    def _note(self, call: Called) -> Tensor:
        operands = [_kept(operand) for operand in call.operands]
        output = call.run(*call.operands)
        self.steps.append(Step(call.name, operands, output.clone()))
        return call.answer(output)

    def _follow(self, call: Called) -> Tensor:
        step = self._step(call)
        changing = sum(operand.requires_grad for operand in call.operands)
        if not changing or (changing == 1 and RULES[call.name] is product):
            return call.func(*call.args, **call.kwargs)  # type: ignore[no-any-return]  # a tensor, as it is
        here = [_kept(operand) for operand in call.operands]
        with torch.no_grad():
            value = call.run(*here)
        back = RULES[call.name](call, here, step.operands, value, step.output)
        return call.answer(Bent.apply(value, back, *call.operands))

    def _step(self, call: Called) -> Step:
        step = self.steps[self.next] if self.next < len(self.steps) else None
        self.next += 1
        shapes = [operand.shape for operand in call.operands]
        if step is None or step.name != call.name or [operand.shape for operand in step.operands] != shapes:
            there = "nothing" if step is None else f"{step.name} of {', '.join(map(shape_text, step.operands))}"
            raise ValueError(
                f"the model takes another path for the input ({call.name}) than for the baseline ({there}), so deep_lift "
                "has nothing to compare unit by unit; take integrated_gradients"
            )
        return step


def _kept(operand: Tensor) -> Tensor:
    """What an in-place operation behind the call cannot change."""
    return operand.detach() if isinstance(operand, nn.Parameter) else operand.detach().clone()


def rescale(call: Called, here: Sequence[Tensor], there: Sequence[Tensor], value: Tensor, base: Tensor) -> Back:
    """Of a function of each element: the difference of outputs by the difference of inputs."""
    multiplier = _slope(call, here, here[0] - there[0], value - base, there[0])
    return lambda gradient: [gradient * multiplier, *[None] * (len(here) - 1)]


def product(call: Called, here: Sequence[Tensor], there: Sequence[Tensor], value: Tensor, base: Tensor) -> Back:
    """Of a product of two operands: each multiplied by the other's mean of input and baseline."""
    middle = [(a + b) / 2 for a, b in zip(here, there, strict=True)]

    def back(gradient: Tensor) -> list[Tensor | None]:
        return [_partial(call, middle, i, gradient) if o.requires_grad else None for i, o in enumerate(call.operands)]

    return back


def _partial(call: Called, operands: Sequence[Tensor], i: int, gradient: Tensor) -> Tensor:
    with torch.enable_grad():
        wanted = operands[i].detach().requires_grad_()
        output = call.run(*operands[:i], wanted, *operands[i + 1 :])
        return torch.autograd.grad(output, wanted, gradient)[0]


def softmax(call: Called, here: Sequence[Tensor], there: Sequence[Tensor], value: Tensor, base: Tensor) -> Back:
    """exp(x - logsumexp(x)): two rules in a row, exact, and each sample for itself."""
    (x, x0), axis = (here[0], there[0]), _axis(call)
    log, log0 = x.log_softmax(axis), x0.log_softmax(axis)
    to_sum = _to_log_sum(x, x0, axis)
    multiplier = value if call.name == "log_softmax" else _divided(value - base, log - log0, value)
    multiplier = torch.ones_like(value) if call.name == "log_softmax" else multiplier

    def back(gradient: Tensor) -> list[Tensor | None]:
        direct = gradient * multiplier
        return [direct - to_sum * direct.sum(axis, keepdim=True)]

    return back


def _to_log_sum(x: Tensor, x0: Tensor, axis: int) -> Tensor:
    """The multiplier from each x to logsumexp(x)."""
    total, total0 = x.logsumexp(axis, keepdim=True), x0.logsumexp(axis, keepdim=True)
    shift = torch.maximum(total, total0)
    e, e0, s, s0 = (x - shift).exp(), (x0 - shift).exp(), (total - shift).exp(), (total0 - shift).exp()
    return _divided(e - e0, x - x0, e) * _divided(total - total0, s - s0, 1 / s)


def max_pool(call: Called, here: Sequence[Tensor], there: Sequence[Tensor], value: Tensor, base: Tensor) -> Back:
    """What a maximum gained goes to where the input has it, what it lost to where the baseline had it."""
    x, x0 = here[0], there[0]
    place, place0 = _indices(call, x), _indices(call, x0)
    higher, change = torch.maximum(value, base), x - x0

    def back(gradient: Tensor) -> list[Tensor | None]:
        gained, lost = _scatter(gradient * (higher - base), place, x), _scatter(gradient * (value - higher), place0, x)
        return [_divided(gained + lost, change, _scatter(gradient, place, x))]

    return back


def _indices(call: Called, x: Tensor) -> Tensor:
    pool = getattr(F, f"{call.name}_with_indices")
    kwargs = {k: v for k, v in call.kwargs.items() if k != "return_indices"}
    return pool(x, *call.args[1:], **kwargs)[1]  # type: ignore[no-any-return]  # values and indices


def _scatter(values: Tensor, place: Tensor, like: Tensor) -> Tensor:
    axes = int(values.dim() - 2) if values.dim() == like.dim() else 1
    flat = torch.zeros_like(like).flatten(-axes)
    return flat.scatter_add(-1, place.flatten(-axes), values.flatten(-axes)).reshape(like.shape)


def _slope(call: Called, here: Sequence[Tensor], change: Tensor, gained: Tensor, there: Tensor) -> Tensor:
    with torch.enable_grad():
        x = here[0].detach().requires_grad_()
        output = call.run(x, *here[1:])
        derivative = torch.autograd.grad(output.sum(), x)[0] if output.requires_grad else torch.zeros_like(x)
    return _divided(gained, change, derivative)


def _divided(gained: Tensor, change: Tensor, otherwise: Tensor) -> Tensor:
    """gained / change; where nothing changed, the derivative. Masked scores (-inf in both) contribute nothing."""
    eps = 1e-12 if change.dtype == torch.float64 else 1e-7
    still = change.abs() <= eps
    ratio = gained / torch.where(still, torch.ones_like(change), change)
    return torch.where(still, otherwise, ratio).nan_to_num(nan=0.0)


def _axis(call: Called) -> int:
    axis = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
    if axis is None:
        raise ValueError(f"{call.name} without dim is ambiguous; name the axis in the model")
    return int(axis)


_ELEMENTWISE = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "prelu"),
    *("sigmoid", "logsigmoid", "hardsigmoid", "hardswish", "hardtanh", "tanh", "tanhshrink", "threshold", "hardshrink"),
    *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "abs", "sin", "cos", "erf", "atan"),
    *("pow", "clamp", "clamp_min", "clamp_max", "clip", "log2", "log10", "exp2", "sinh", "cosh"),
)
_PRODUCTS = ("mul", "matmul", "bmm", "mm", "mv", "dot", "einsum", "baddbmm", "addmm", "addcmul", "linear", "bilinear")
_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, rescale),
    **dict.fromkeys(_PRODUCTS, product),
    **dict.fromkeys(_POOLS, max_pool),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
}
