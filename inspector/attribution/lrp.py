"""Layer-wise relevance propagation by Captum, which puts hooks on modules.

It is only right where every step has a rule, so a first run watches what happens outside of modules, and refuses. In
Captum's second run the gradient that arrives at a value is the relevance of it, so that all layers come from one run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from inspector.attribution.gradients import Values
from inspector.attribution.places import known
from inspector.attribution.question import Question
from inspector.attribution.seen import Seen, once
from inspector.hooks import Event, Where, edit, select, tap
from inspector.hooks.select import names
from inspector.sites import Kind, Site
from inspector.tensors import walk

NEAREST = "so it would be wrong; take deep_lift or integrated_gradients"
RULES = ("epsilon", "gamma", "alpha1_beta0", "z_plus", "identity")

_HARMLESS = {
    *("size", "dim", "__get__", "view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "clone", "__len__"),
    *("numel", "to", "type", "float", "double", "requires_grad_", "movedim", "is_floating_point", "detach", "is_complex"),
}
_LINEAR = (  # the epsilon rule holds for every linear step, though Captum does not list these
    *(nn.Flatten, nn.Identity, nn.Conv1d, nn.Conv3d, nn.AvgPool1d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d),
    *(nn.BatchNorm1d, nn.BatchNorm3d),
)
_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def lrp(question: Question, *, rule: Any = "epsilon", epsilon: float = 1e-9, gamma: float = 0.25) -> Values:
    """Layer-wise relevance propagation (Bach et al. 2015). Refused where a step of the model has no rule.

    rule: "epsilon", "gamma", "alpha1_beta0", "z_plus" or "identity", one of Captum's rules, or a mapping of module globs
    to them; the epsilon rule where none is named. A ``rule`` that a module has itself is kept.
    """
    _refuse(question)
    return _propagated(question, _chosen(question.model, rule, epsilon, gamma))


def layers_lrp(
    question: Question,
    where: Where,
    *,
    kinds: Sequence[Kind] = ("output",),
    rule: Any = "epsilon",
    epsilon: float = 1e-9,
    gamma: float = 0.25,
) -> dict[Site, Seen]:
    """The relevance that arrives at every layer, from one run of Captum."""
    score = _refuse(question)
    found = once(question, where, kinds=kinds)
    arriving: dict[Site, Tensor] = {}

    def see(event: Event) -> None:
        through = getattr(event.module, "rule", 0) is None  # Captum's sign for what hands relevance on, such as a ReLU
        for leaf, tensor in walk(event.value):
            if tensor.requires_grad and not (through and event.site.kind == "input"):
                tensor.retain_grad()  # runs behind the hooks of Captum's rules, which make the gradient the relevance
                arriving[event.site._replace(leaf=leaf, call=0)] = tensor

    with tap(question.model, where, see, what=("input", "output")):
        _propagated(question, _chosen(question.model, rule, epsilon, gamma))
    for site, seen in found.items():
        place = site if site in arriving else Site(site.path, 0)
        relevance = arriving[place].grad
        assert relevance is not None  # a gradient reaches all that were found
        seen.activation = relevance.movedim(seen.axis, 0)
        seen.activation = seen.activation * score.reshape(-1, *[1] * (seen.activation.dim() - 1))
    return found


class _Asked(nn.Module):
    """The question as a module, for a method that puts hooks on the modules below."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.model = question.model
        self._ask = question.for_captum if question.target.neuron is None else partial(_at_neuron, question)

    def forward(self, *values_and_rows: Tensor) -> Tensor:
        return self._ask(*values_and_rows)


def _at_neuron(question: Question, *values_and_rows: Tensor) -> Tensor:
    """The unit's score; what follows gets a copy, because the rules of what follows change the gradient that arrives."""
    *values, rows = values_and_rows
    neuron, there = question.target.neuron, []
    assert neuron is not None  # asked for by _Asked

    def part(value: Tensor) -> Tensor:
        there.append(value)
        return value.detach().clone().requires_grad_(value.requires_grad)

    with edit(question.model, {known(question.model, neuron.site): part}):
        question.answer(tuple(values), rows)
    return question.target(there[-1].movedim(question.neuron_axis or 0, 0), rows)


def _propagated(question: Question, chosen: Mapping[nn.Module, Any]) -> Values:
    from captum.attr import LRP

    for module in question.model.modules():  # what is set here is taken away with Captum's own traces
        if module in chosen and not hasattr(module, "rule"):
            module.rule = chosen[module]
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  # no attribute of nn.Module
    asked = _Asked(question)
    asked.training = False
    values = question.fresh()
    with _own_storage(question.model):
        found = LRP(asked).attribute(values, additional_forward_args=question.rows(values[0]))
    return tuple(value.detach() for value in found)


@contextmanager
def _own_storage(model: nn.Module) -> Iterator[None]:
    """Captum's rules put other tensors into the parameters and copy the values back; here each gets its own back."""
    before = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def _chosen(model: nn.Module, rule: Any, epsilon: float, gamma: float) -> dict[nn.Module, Any]:
    """The rule of each module that has one, as Captum's object. One for all goes to the layers with weights."""
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES

    linear = [m for m in model.modules() if type(m) in (*SUPPORTED_LAYERS_WITH_RULES, *_LINEAR)]
    named: dict[nn.Module, Any] = dict.fromkeys(linear, "epsilon")
    if isinstance(rule, Mapping):
        for where, one in rule.items():
            chosen = [m for m in select(model, where).values() if m in named or not any(m.children())]
            named |= dict.fromkeys([m for m in chosen if m in named or not isinstance(one, str)], one)
    else:
        named |= dict.fromkeys([m for m in linear if isinstance(m, _WEIGHTED) or rule == "epsilon"], rule)
    return {module: _made(module, one, epsilon, gamma) for module, one in named.items()}


def _made(module: nn.Module, rule: Any, epsilon: float, gamma: float) -> Any:
    from captum.attr._utils import lrp_rules as captum

    if isinstance(rule, captum.PropagationRule):
        return copy.deepcopy(rule)  # it keeps what it saw, so no two modules share one
    made: dict[str, Callable[[], Any]] = {
        "epsilon": lambda: captum.EpsilonRule(epsilon),
        "gamma": lambda: captum.GammaRule(gamma),
        "alpha1_beta0": captum.Alpha1_Beta0_Rule,
        "z_plus": lambda: captum.Alpha1_Beta0_Rule(set_bias_to_zero=True),
        "identity": lambda: captum.IdentityRule(epsilon),
    }
    if rule not in made:
        raise ValueError(
            f"rule={rule!r} is no rule of lrp; there are {', '.join(RULES)}, Captum's rules, and mappings to them"
        )
    if rule in ("gamma", "alpha1_beta0", "z_plus") and isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise ValueError(
            f"rule {rule!r} changes weights, which in a BatchNorm mean something else; take epsilon or identity"
        )
    sizes = [getattr(module, name, None) for name in ("in_features", "in_channels", "out_features", "out_channels")]
    if rule == "identity" and sizes[:2] != sizes[2:]:
        raise ValueError(
            f"rule 'identity' hands relevance on as it is, which {module} cannot: its ends differ; take epsilon"
        )
    return made[rule]()


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


def _refuse(question: Question) -> Tensor:
    """(batch,) the scores, where every step from them to what is explained has a rule."""
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS

    fit = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS, *_LINEAR)
    leaves = {name: m for name, m in names(question.model).items() if not any(m.children())}
    outside = _Outside()
    values = question.fresh()
    rows = question.rows(values[0])
    with tap(question.model, list(leaves.values()), outside.step, what=("input", "output")), outside:
        answer = question.answer(values, rows)
    for name in outside.calls:
        kind = type(leaves[name])
        if kind not in fit and not hasattr(leaves[name], "rule"):
            raise ValueError(f"lrp has no rule for {kind.__name__} ({name!r}), {NEAREST}")
    again = [name for name, calls in outside.calls.items() if calls > 1]
    if again:
        raise ValueError(f"lrp keeps one state per module, and {again[0]!r} runs several times, {NEAREST}")
    if outside.met:
        met = ", ".join(dict.fromkeys(outside.met))
        raise ValueError(f"lrp has no rule for what happens outside of modules here ({met}: a residual?), {NEAREST}")
    return _one_output(question.target(answer, rows), answer)


def _one_output(score: Tensor, answer: Any) -> Tensor:
    """The scores, where each is one number of the output as it is, which is what Captum passes back."""
    there = [tensor for _, tensor in walk(answer) if tensor.requires_grad]
    found = torch.autograd.grad(score.sum(), there, allow_unused=True) if score.requires_grad else []
    slopes = [slope.flatten(1) for slope in found if slope is not None]
    if slopes:
        slope = torch.cat(slopes, 1)
        if bool(((slope != 0) & (slope != 1)).any()) or bool((slope.sum(1) != 1).any()):
            raise ValueError(
                "lrp passes back one output per sample, and this target makes another number of the outputs; give a class, "
                "or take deep_lift or integrated_gradients"
            )
    return score.detach()
