"""What the survey compares: a run nobody looks at, a run with raw hooks written by hand, and a run under capture."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from inspector import Store, capture
from inspector.tensors import rebuild, walk

Run = Callable[[nn.Module], Any]  # calls the model, and backward where there is a loss; answers with the model's output


@dataclass
class Seen:
    """What raw hooks saw, by (path, call): each leaf's value, the type of the nesting, and each leaf's gradient."""

    values: dict[tuple[str, int], dict[Any, Tensor]] = field(default_factory=dict)
    types: dict[tuple[str, int], type] = field(default_factory=dict)
    grads: dict[tuple[str, int], dict[Any, Tensor]] = field(default_factory=dict)
    views: set[tuple[str, int, Any]] = field(default_factory=set)  # leaves that a tensor hook cannot always follow
    calls: dict[str, int] = field(default_factory=dict)


class Raw:
    """The oracle: on every module a pre-hook that counts, a hook that clones, and a tensor hook on each leaf.

    A view that is written to in place later leaves the graph, and its hook never fires. ``apart`` gives every next
    module a copy of the view instead: rounding may differ, but then there is a gradient to compare with.
    """

    def __init__(self, model: nn.Module, *, apart: bool = False) -> None:
        self.seen, self.handles, self.running, self.apart = Seen(), [], [], apart
        for path, module in model.named_modules():
            if "parametrizations" not in path.split("."):
                self.handles.append(module.register_forward_pre_hook(partial(self.enter, path)))
                self.handles.append(module.register_forward_hook(partial(self.leave, path), always_call=True))

    def enter(self, path: str, module: nn.Module, args: Any) -> None:
        index = self.seen.calls.get(path, 0)
        self.seen.calls[path] = index + 1
        self.running.append((path, index))

    def leave(self, path: str, module: nn.Module, args: Any, output: Any) -> Any:
        place = self.running.pop()
        assert place[0] == path
        self.seen.types[place] = type(output)
        self.seen.values[place] = {leaf: t.detach().clone() for leaf, t in walk(output)}
        self.seen.grads[place] = {}
        if self.apart:
            output = rebuild(output, lambda leaf, t: t.clone() if t._is_view() and not t.is_leaf else t)
        for leaf, t in walk(output):
            if t._is_view() and not t.is_inference():
                self.seen.views.add((*place, leaf))
            if t.requires_grad:
                self.handles.append(t.register_hook(partial(self.arrive, place, leaf)))
        return output if self.apart else None

    def arrive(self, place: tuple[str, int], leaf: Any, grad: Tensor | None) -> None:
        if grad is not None:
            grads = self.seen.grads[place]
            grads[leaf] = grads[leaf] + grad if leaf in grads else grad.clone()

    def close(self) -> Seen:
        for handle in self.handles:
            handle.remove()
        return self.seen


def same(one: Tensor, other: Tensor) -> bool:
    """Equal bit for bit, also where it is NaN, and of the same dtype and layout."""
    if (one.dtype, one.layout, one.is_nested, one.is_meta) != (other.dtype, other.layout, other.is_nested, other.is_meta):
        return False
    if one.is_meta:
        return one.shape == other.shape
    if one.is_quantized:
        return torch.equal(one, other)
    if one.is_nested:
        return all(map(same, one.unbind(), other.unbind()))
    if one.layout != torch.strided:
        return same(one.to_dense(), other.to_dense())
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def all_same(one: dict[Any, Tensor], other: dict[Any, Tensor]) -> bool:
    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)


def loss_of(output: Any) -> Tensor | None:
    """A number that every leaf reaches, with another weight for each element."""
    total: Tensor | None = None
    for _, t in walk(output):
        if not t.requires_grad or not (t.is_floating_point() or t.is_complex()):
            continue
        t = torch.cat([item.reshape(-1) for item in t.unbind()]) if t.is_nested else t
        t = t.to_dense() if t.layout != torch.strided else t
        real = torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
        weights = torch.arange(1, real.numel() + 1, dtype=torch.float64).remainder(7).sub(2.5).reshape(real.shape)
        part = (real.double() * weights).sum()
        total = part if total is None else total + part
    return total


def forward_and_backward(args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Run:
    """Call the model with copies of these inputs, and go back from a loss over all its outputs."""

    def run(model: nn.Module) -> Any:
        given, named = copy.deepcopy((args, kwargs or {}))
        output = model(*given, **named)
        loss = loss_of(output)
        if loss is not None:
            loss.backward()
        return output

    return run


@dataclass
class Plain:
    """What a run left behind."""

    output: dict[Any, Tensor]
    grads: dict[str, Tensor]
    state: dict[str, Tensor]
    random: Tensor
    structure: Any


def left_behind(model: nn.Module, output: Any) -> Plain:
    grads = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    state = {name: t.detach().clone() for name, t in model.named_buffers()}
    found = {leaf: t.detach().clone() for leaf, t in walk(output)}
    return Plain(found, grads, state, torch.get_rng_state(), structure(model))


def structure(model: nn.Module) -> Any:
    """Modes, attributes, hooks and what requires grad: all that looking must leave alone."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    modules = [
        (name, type(m), m.training, sorted(vars(m)), [len(getattr(m, hook)) for hook in hooks])
        for name, m in model.named_modules()
    ]
    return modules, [(name, p.requires_grad) for name, p in model.named_parameters()]


def seeded(run: Run, model: nn.Module) -> Any:
    torch.manual_seed(3)
    return run(model)


def judge(model: nn.Module, run: Run) -> list[str]:
    """Run three equal models; returns in words every way in which capture differs from the oracle, or changes the run."""
    plain_model, fresh = copy.deepcopy(model), copy.deepcopy(model)
    plain = left_behind(plain_model, seeded(run, plain_model))
    seen, _ = oracle(copy.deepcopy(fresh), run)
    with capture(model, what=("output", "grad")) as store:
        output = seeded(run, model)
    wrong = [*differences(plain, left_behind(model, output)), *unlike(store, seen)]
    return [*wrong, *unpicklable(model, plain_model), *unlike_views(store, seen, plain, fresh, run)]


def oracle(model: nn.Module, run: Run, *, apart: bool = False) -> tuple[Seen, Any]:
    raw = Raw(model, apart=apart)
    try:
        output = seeded(run, model)
    finally:
        seen = raw.close()
    return seen, output


def unlike_views(store: Store, seen: Seen, plain: Plain, fresh: nn.Module, run: Run) -> list[str]:
    """Where a gradient was found for a view that raw hooks lost, and is not the one that a copy of the view gets."""
    more = [(site, leaf, t) for site, leaf, t in gradients(store) if leaf not in seen.grads[site]]
    if not more:
        return []
    seen, output = oracle(fresh, run, apart=True)
    if not all(torch.allclose(t, plain.output[leaf], atol=1e-5, equal_nan=True) for leaf, t in walk(output)):
        return []  # the base of the view is read as well: with a copy the model computes something else
    expected = [(site, leaf, t, seen.grads[site].get(leaf)) for site, leaf, t in more]
    return [
        f"{site}: another gradient at the view {leaf}"
        for site, leaf, t, true in expected
        if true is None or not torch.allclose(t, true, rtol=1e-4, atol=1e-6, equal_nan=True)
    ]


def gradients(store: Store) -> list[tuple[tuple[str, int], Any, Tensor]]:
    calls = [((call.site.path, call.site.call or 0), call) for call in store.values()]
    return [(site, leaf, t) for site, call in calls for leaf, t in walk(call.grad)]


def differences(plain: Plain, looked_at: Plain) -> list[str]:
    """What looking changed."""
    checks = {
        "the output": all_same(plain.output, looked_at.output),
        "the parameters' gradients": all_same(plain.grads, looked_at.grads),
        "the buffers": all_same(plain.state, looked_at.state),
        "the random stream": torch.equal(plain.random, looked_at.random),
        "the modules": plain.structure == looked_at.structure,
    }
    return [f"looking changed {what}" for what, kept in checks.items() if not kept]


def unpicklable(model: nn.Module, twin: nn.Module) -> list[str]:
    """A model that could be copied and pickled before can be afterwards."""
    if sum(p.numel() for p in model.parameters()) > 10**6:
        return []
    try:
        pickle.dumps(twin)
        copy.deepcopy(twin)  # a model that keeps a value of its run, as RAFT does, cannot be copied then
    except Exception:
        return []
    back = pickle.loads(pickle.dumps(model))
    copied = copy.deepcopy(model)
    return [] if structure(back) == structure(copied) == structure(model) else ["a pickled or copied model differs"]


def unlike(store: Store, seen: Seen) -> list[str]:
    """Where the store is not what the raw hooks saw."""
    wrong = []
    for path, status in store.coverage.items():
        if status.calls != seen.calls.get(path, 0):
            wrong.append(f"{path!r} ran {seen.calls.get(path, 0)} times, {status.calls} were counted")
        if not status.calls and not status.reason:
            wrong.append(f"{path!r} never ran and nothing says why")
    places = {(call.site.path, call.site.call): call for call in store.values()}
    if places.keys() != seen.values.keys():
        return [*wrong, f"calls {sorted(places.keys() ^ seen.values.keys())[:5]} are in one but not in both"]
    for place, call in places.items():
        wrong += [f"{place}: {why}" for why in _unlike_call(call, place, seen)]
    return wrong


def _unlike_call(call: Any, place: tuple[str, int], seen: Seen) -> list[str]:
    wrong = []
    values = dict(walk(call.output))
    if not all_same(values, seen.values[place]):
        wrong.append("another output")
    if type(call.output) is not seen.types[place]:
        wrong.append(f"a {seen.types[place].__name__} became a {type(call.output).__name__}")
    grads, expected = dict(walk(call.grad)), seen.grads[place]
    for leaf in values:
        if leaf in expected and (leaf not in grads or not same(grads[leaf], expected[leaf])):
            wrong.append(f"another gradient at {leaf}")
        if leaf in grads and leaf not in expected and (*place, leaf) not in seen.views:
            wrong.append(f"a gradient at {leaf} where none came")
        if leaf not in grads and "grad" not in call.why:
            wrong.append(f"no gradient at {leaf} and nothing says why")
    return wrong
