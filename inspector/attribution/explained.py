"""What is explained: the floating inputs, token and category ids at the embedding that receives them, or a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution import baselines as base
from inspector.attribution.places import Passed, at, batch_axis, input_name, known, watch
from inspector.attribution.positions import input_axes, layer_axes
from inspector.attribution.question import Question, Slot
from inspector.hooks import Event, tap
from inspector.hooks.select import names
from inspector.sites import Kind, Site
from inspector.tensors import Leaf, pick, rebuild, walk

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def private(inputs: Any) -> Any:
    """Copies that methods may ask gradients of; nothing of the user's is touched."""
    return rebuild(inputs, lambda _, tensor: tensor.detach().clone())


def find(question: Question, explain: Any, layer: str | Site | None, *, lenient: bool = False) -> list[tuple[Slot, Tensor]]:
    """Each thing to explain with its value, batch axis first. Raises LookupError or ValueError where there is nothing."""
    if layer is not None:
        return [at_site(question, known(question.model, layer))]
    wanted = None if explain is None else [*explain] if isinstance(explain, (list, tuple, set)) else [explain]
    leaves = {leaf: tensor for leaf, tensor in walk(question.inputs) if tensor.dim()}
    named = [key for key in wanted or [] if not any(_means(key, leaf) for leaf in leaves)]
    found = [at_site(question, known(question.model, key)) for key in named if _is_module(question.model, key)]
    if len(found) < len(named):
        raise LookupError(f"explain={explain!r} names no input; there are {_there(leaves)}, or name a module")
    chosen = {k: t for k, t in leaves.items() if wanted is None or any(_means(key, k) for key in wanted)}
    found = [*_inputs(question, chosen), *found]
    if not found and not lenient:
        raise ValueError(
            f"nothing to explain: {_there(leaves)} hold no floating numbers and reach no nn.Embedding as they are; "
            "give numbers as floats, or name the module that embeds ids with layer=..."
        )
    return found


def _inputs(question: Question, chosen: Mapping[Leaf, Tensor]) -> list[tuple[Slot, Tensor]]:
    whole = {leaf: tensor for leaf, tensor in chosen.items() if _is_ids(tensor)}
    embedded = _embedded(question, whole) if whole and _has_embedding(question.model) else {}
    found: list[tuple[Slot, Tensor]] = []
    for leaf, tensor in chosen.items():
        if tensor.is_floating_point():
            positions = input_axes(question.model, tensor, question.samples, leaf)
            found.append((Slot(input_name(leaf), leaf, positions=positions), tensor))
        found += embedded.get(leaf, [])
    return found


def _embedded(question: Question, ids: Mapping[Leaf, Tensor]) -> dict[Leaf, list[tuple[Slot, Tensor]]]:
    """For each tensor of ids, the embedding calls that receive it, whole or a part of it."""
    found: dict[Leaf, list[tuple[Slot, Tensor]]] = {}
    sources: dict[tuple[str, int | None], Leaf | None] = {}

    def see(event: Event) -> None:
        call = event.site[:2]
        if event.site.kind == "input":
            free = {leaf: tensor for leaf, tensor in ids.items() if leaf not in sources.values()}
            sources[call] = _source(free, event.value[0]) or _source(ids, event.value[0])
        leaf = sources.get(call)
        if event.site.kind == "output" and leaf is not None:
            value = event.value.detach().clone()
            slot = Slot(input_name(leaf), leaf, Site(*call), 0, tuple(range(1, value.dim() - 1)))
            found.setdefault(leaf, []).append((slot, value))

    where = [module for module in question.model.modules() if isinstance(module, EMBEDDINGS)]
    with torch.no_grad(), tap(question.model, where, see, what=("input", "output")):
        question.run({}, torch.arange(question.size))
    return found


def _source(ids: Mapping[Leaf, Tensor], received: Tensor) -> Leaf | None:
    """Which input the received ids are or are cut from: of one storage, or else of the same numbers."""
    for leaf, tensor in ids.items():
        if received.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            return leaf
    for leaf, tensor in ids.items():
        parts = [tensor, *(tensor.unbind(-1) if tensor.dim() == received.dim() + 1 else [])]
        if any(part.shape == received.shape and torch.equal(part.long(), received.long()) for part in parts):
            return leaf
    return None


def at_site(question: Question, site: Site) -> tuple[Slot, Tensor]:
    """The value at a site as a slot, batch axis moved to the front."""
    site, value, module = at(_pass(question, [site.path], (site.kind,)), site)
    axis = axis_at(question, module, site, value)
    value = value.detach().movedim(axis, 0).clone()
    if not value.is_floating_point():
        raise TypeError(f"{site} holds {value.dtype}, which nothing can be attributed to; choose a floating layer")
    return Slot(str(site), (), site, axis, layer_axes(question.channels_first, module, site, value)), value


def axis_at(question: Question, module: nn.Module, site: Site, value: Tensor) -> int:
    def again(n: int) -> Tensor:
        rows = torch.arange(n) % question.size
        return at(_pass(question, [site.path], (site.kind,), rows), site)[1]

    return batch_axis(module, site, value, question.size, again)


def _pass(
    question: Question,
    paths: Iterable[str],
    kinds: Iterable[Kind],
    rows: Tensor | None = None,
    placed: Mapping[Leaf, Tensor] | None = None,
) -> dict[tuple[str, int | None, str], Passed]:
    rows = torch.arange(question.size) if rows is None else rows
    with torch.no_grad():
        return watch(question.model, paths, lambda: question.run(placed or {}, rows), kinds)


def baselines_for(question: Question, given: Any, *, at_layer: bool, several: bool = False) -> tuple[Tensor, ...]:
    """The baselines of every slot. At a layer they are what the layer answers to baselines of the inputs, as in Captum,
    unless a tensor of the layer's own shape is given."""
    if at_layer and not _fits(given, question.values[0]):
        return (_layer_baseline(question, given),)
    count = len(question.slots)
    made = []
    for i, (slot, value) in enumerate(zip(question.slots, question.values, strict=True)):
        own = base.of_slot(given, i, count, slot.leaf[0] if slot.leaf else None)
        own = _embed(question, slot, own) if slot.site is not None and _ids_given(own) else own
        made.append((base.distribution if several else base.make)(own, value, slot.positions, slot.name))
    return tuple(made)


def _fits(given: Any, value: Tensor) -> bool:
    if not isinstance(given, Tensor) or not given.is_floating_point():
        return False
    return given.shape in (value.shape, (1, *value.shape[1:]))


def _layer_baseline(question: Question, given: Any) -> Tensor:
    """The layer's value for baseline inputs; ids of zero for inputs that are no floating numbers, as in Captum."""
    slot, leaves = question.slots[0], [leaf for leaf, t in walk(question.inputs) if t.dim()]
    placed = {}
    for i, leaf in enumerate(leaves):
        tensor = pick(question.inputs, leaf)
        own = base.of_slot(given, i, len(leaves), leaf[0] if leaf else None)
        if tensor.is_floating_point() or (_is_ids(tensor) and len(leaves) == 1):
            positions = input_axes(question.model, tensor, question.samples, leaf)
            placed[leaf] = base.make(own, tensor, positions, input_name(leaf))
    assert slot.site is not None
    seen = _pass(question, [slot.site.path], (slot.site.kind,), placed=placed)
    found = at(seen, slot.site)[1].detach().movedim(slot.axis, 0).clone()
    if not found.isfinite().all():
        raise ValueError(
            f"{slot.name} is not finite for a baseline of {'zero' if given is None else given} at the inputs, such as where "
            "every token is padding; give baselines=, a tensor of the layer's own shape or ids of another token"
        )
    return found


def _embed(question: Question, slot: Slot, ids: Any) -> Tensor:
    """Ids given as a baseline, such as the padding token, as their embedding."""
    assert slot.site is not None
    tensor = pick(question.inputs, slot.leaf)
    own = torch.as_tensor(ids, device=tensor.device, dtype=tensor.dtype).expand_as(tensor).clone()
    seen = _pass(question, [slot.site.path], ("output",), placed={slot.leaf: own})
    return at(seen, slot.site)[1].detach().clone()


def nest(question: Question, found: tuple[Any, ...]) -> Any:
    """One answer per slot, nested like the inputs where all of them are explained; a single one stands alone."""
    leaves = [slot.leaf for slot in question.slots]
    inputs = question.inputs
    everything = isinstance(inputs, (tuple, dict)) and [leaf for leaf, _ in walk(inputs)] == leaves
    if len(found) == 1 and not everything:
        return found[0]
    if isinstance(inputs, Mapping) and all(len(leaf) == 1 for leaf in leaves) and len(set(leaves)) == len(leaves):
        return {leaf[0]: value for leaf, value in zip(leaves, found, strict=True)}
    return tuple(found)


def _is_ids(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _ids_given(given: Any) -> bool:
    return isinstance(given, int) or (isinstance(given, Tensor) and _is_ids(given))


def _has_embedding(model: nn.Module) -> bool:
    return any(isinstance(module, EMBEDDINGS) for module in model.modules())


def _means(key: Any, leaf: Leaf) -> bool:
    return key == leaf or (bool(leaf) and key == leaf[0])


def _is_module(model: nn.Module, key: Any) -> bool:
    return isinstance(key, (str, Site)) and Site.parse(key).path in names(model)


def _there(leaves: Mapping[Leaf, Tensor]) -> str:
    return ", ".join(input_name(leaf) for leaf in leaves) or "no tensors"
