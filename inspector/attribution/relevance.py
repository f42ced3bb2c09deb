"""Methods that Captum runs with hooks on modules: layer-wise relevance propagation; and guided Grad-CAM.

LRP is only right where every step has a rule, so a first run watches what happens outside of modules, and refuses.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from inspector.attribution import cams, rules
from inspector.attribution.gradients import Values
from inspector.attribution.question import Question
from inspector.attribution.seen import once
from inspector.hooks import tap
from inspector.tensors import shape_text

_HARMLESS = {
    *("size", "dim", "__get__", "view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "clone", "__len__"),
    *("numel", "to", "type", "float", "double", "requires_grad_", "movedim", "is_floating_point", "detach", "is_complex"),
}

_LINEAR = (  # the epsilon rule holds for every linear step, though Captum does not list these
    *(nn.Flatten, nn.Identity, nn.Conv1d, nn.Conv3d, nn.AvgPool1d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d),
    *(nn.BatchNorm1d, nn.BatchNorm3d),
)


class _Asked(nn.Module):
    """The question as a module, for methods that put hooks on the modules below."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.model, self._ask = question.model, question.for_captum

    def forward(self, *values_and_rows: Tensor) -> Tensor:
        return self._ask(*values_and_rows)


class _Outside(TorchFunctionMode):
    """Notes the functions of tensors that require a gradient and are called outside of the modules that have rules."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.met, self.calls = 0, [], {}  # type: ignore[var-annotated]  # a counter, names, calls by path

    def step(self, event: Any) -> None:
        entering = event.site.kind == "input"
        self.inside += 1 if entering else -1
        if entering:
            self.calls[event.site.path] = self.calls.get(event.site.path, 0) + 1

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        if not self.inside and name not in _HARMLESS and isinstance(answer, Tensor) and answer.requires_grad:
            self.met.append(name)
        return answer


def lrp(question: Question) -> Values:
    """Layer-wise relevance propagation by Captum's epsilon rule (Bach et al. 2015), or the ``rule`` that a module has.

    Refused where a step of the model has no rule.
    """
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    _refuse(question)
    for module in question.model.modules():  # what is set here is taken away with Captum's own traces
        if isinstance(module, _LINEAR) and not hasattr(module, "rule"):
            module.rule = EpsilonRule()
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  # no attribute of nn.Module
    asked = _Asked(question)
    asked.training = False
    values = question.fresh()
    found = LRP(asked).attribute(values, additional_forward_args=question.rows(values[0]))
    return tuple(value.detach() for value in found)


def _refuse(question: Question) -> None:
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS

    known = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS, *_LINEAR)
    nearest = "so it would be wrong; take deep_lift or integrated_gradients"
    leaves = {name: m for name, m in question.model.named_modules() if not any(m.children())}
    outside = _Outside()
    with tap(question.model, list(leaves.values()), outside.step, what=("input", "output")), outside:
        question.answer(question.fresh(), question.rows(question.values[0]))
    for name in outside.calls:
        kind = type(leaves[name])
        if kind not in known and not hasattr(leaves[name], "rule"):
            raise ValueError(f"lrp has no rule for {kind.__name__} ({name!r}), {nearest}")
    again = [name for name, calls in outside.calls.items() if calls > 1]
    if again:
        raise ValueError(f"lrp keeps one state per module, and {again[0]!r} runs several times, {nearest}")
    if outside.met:
        met = ", ".join(dict.fromkeys(outside.met))
        raise ValueError(f"lrp has no rule for what happens outside of modules here ({met}: a residual?), {nearest}")


def guided_grad_cam(question: Question) -> Values:
    """Guided backpropagation times the positive Grad-CAM of a layer, brought to the input's size (Selvaraju et al. 2017)."""
    site = question.layer
    assert site is not None  # asked for at the door
    guided = rules.guided_backprop(question)
    seen = next(seen for s, seen in once(question, [site.path], kinds=(site.kind,)).items() if site.call in (None, s.call))
    cam = cams.grad_cam(seen, relu_attributions=True)
    return tuple(g * _like(cam, g, site) for g in guided)


def _like(cam: Tensor, value: Tensor, site: Any) -> Tensor:
    """The map at the input's positions: as it is where they are the same, otherwise repeated to the input's size."""
    if cam.dim() == value.dim() and all(n in (1, m) for n, m in zip(cam.shape, value.shape, strict=True)):
        return cam
    if cam.dim() != value.dim() or cam.dim() < 3 or cam.shape[1] != 1:
        raise ValueError(f"{site} ({shape_text(cam)}) has other positions than the input ({shape_text(value)})")
    return F.interpolate(cam, size=value.shape[2:], mode="nearest")
