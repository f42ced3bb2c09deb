"""The picture of one call: feature maps, states over time, attention or gates, whichever its values are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from inspector.records import Call, Store
from inspector.sites import Kind
from inspector.tensors import digest, dtype_text, shape_text, walk
from inspector.viz.anything import tensor_figure
from inspector.viz.attention import attention_figure
from inspector.viz.figure import Figure
from inspector.viz.gates import gates_figure
from inspector.viz.images import plot_mosaic
from inspector.viz.scales import colour_bar, sequential, signed
from inspector.viz.sequences import grey_axis, plot_steps
from inspector.viz.style import styled

_ORDER: tuple[Kind, ...] = ("attention", "gates", "output", "input", "grad", "grad_input")


def show_call(call: Call, *, kind: Kind | None = None, sample: int = 0, **options: Any) -> Figure:
    """One ``sample`` of one ``kind`` of value (default: attention, gates or output, the first that there is).

    For attention ``tokens`` names the axes and ``patches=(rows, columns)`` lays them over an image; for gates ``layer``
    counts layers times directions.
    """
    for chosen in [kind] if kind else [k for k in _ORDER if k in call.kinds]:
        tensors = [tensor for _, tensor in walk(getattr(call, chosen))]
        if tensors and (tensors[0].is_nested or not tensors[0].numel()):
            return tensor_figure(tensors[0], title=_named(call, chosen))
        if tensors:
            tensors = _batch_first(call, tensors)
            _check(tensors[0], sample, chosen)
            return _DRAWN.get(chosen, _values)(call, chosen, tensors, sample, options)
    reasons = "; ".join(f"{k}: {call.reason(k)}" for k in call.kinds)
    raise LookupError(f"{call.site} holds no tensor to show ({reasons})")


def _batch_first(call: Call, tensors: list[Tensor]) -> list[Tensor]:
    """A recurrent layer may put time first; its last states (layers, batch, units) beside the output tell."""
    if call.module not in ("LSTM", "GRU", "RNN") or len(tensors) < 2 or not tensors[0].dim() == tensors[1].dim() == 3:
        return tensors
    batch = tensors[1].shape[1]
    time_first = tensors[0].shape[0] != batch == tensors[0].shape[1]
    return [tensors[0].transpose(0, 1), *tensors[1:]] if time_first else tensors


def _check(tensor: Tensor, sample: int, kind: Kind) -> None:
    batch = tensor.shape[1 if kind == "gates" and tensor.dim() == 4 else 0] if tensor.dim() > 1 else 1
    if not 0 <= sample < batch:
        raise IndexError(f"there is no sample {sample}: the {kind} holds {batch}")


def _title(call: Call, kind: Kind, sample: int) -> str:
    return f"{_named(call, kind)}, sample {sample}"


def _named(call: Call, kind: Kind) -> str:
    site = call.site._replace(kind=kind, path=call.site.path or "(model)")
    return f"{site} ({call.module})"


def _values(call: Call, kind: Kind, tensors: list[Tensor], sample: int, options: dict[str, Any]) -> Figure:
    tensor = tensors[0]
    if tensor.dim() == 4 and min(tensor.shape[2:]) > 1:
        return _maps(call, kind, tensor, sample, options)
    if tensor.dim() == 3 and tensor.is_floating_point():
        return _states(call, kind, tensor, sample, options)
    title = _named(call, kind)
    return tensor_figure(tensor, title=title, axes=("sample", "unit") if tensor.dim() == 2 else None, **options)


def _maps(call: Call, kind: Kind, tensor: Tensor, sample: int, options: dict[str, Any]) -> Figure:
    maps = tensor[sample]
    scale = sequential(maps, over=f"{len(maps)} maps")
    with styled():
        drawn = Figure(natural=(7.0, 5.0), **options)
        ax = drawn.add_subplot()
        colour_bar(ax, plot_mosaic(maps, ax=ax, scale=scale), scale)
    drawn.head(_title(call, kind, sample), _facts(tensor))
    drawn.foot(f"The most active map first; a crossed-out map is 0 everywhere for this sample. Colours: {scale}.")
    return drawn


def _states(call: Call, kind: Kind, tensor: Tensor, sample: int, options: dict[str, Any]) -> Figure:
    states = tensor[sample]
    scale = signed(states, over="this sample")
    with styled():
        tall = min(max(0.05 * states.shape[1], 1.8), 6.0)
        drawn = Figure(natural=(7.6, tall + 1.3), **options)
        ax = drawn.add_subplot()
        colour_bar(ax, plot_steps(states, scale=scale, ax=ax), scale)
        grey_axis(ax)
        ax.set_ylabel("unit")
    drawn.head(_title(call, kind, sample), _facts(tensor))
    drawn.foot(f"Colours: {scale}.")
    return drawn


def _facts(tensor: Tensor) -> str:
    return f"{shape_text(tensor)} · {dtype_text(tensor)} · {digest(tensor)}"


def _attention(call: Call, kind: Kind, tensors: list[Tensor], sample: int, options: dict[str, Any]) -> Figure:
    title = _title(call, kind, sample)
    layers = {"heads" if len(tensors) == 1 else f"[{i}]": heads_of(tensor, sample) for i, tensor in enumerate(tensors)}
    return attention_figure(layers, **{"title": title, **options})


def heads_of(tensor: Tensor, sample: int) -> Tensor:
    """(heads, queries, sources) of one sample, whether or not there are a batch and several heads."""
    one = tensor[sample] if tensor.dim() >= 4 else tensor
    return one.reshape(-1, *one.shape[-2:])


def _gates(call: Call, kind: Kind, tensors: list[Tensor], sample: int, options: dict[str, Any]) -> Figure:
    layer = int(options.pop("layer", 0))
    gates = getattr(call, kind)
    if not isinstance(gates, Mapping) or tensors[0].dim() < 3:
        return _values(call, kind, tensors, sample, options)
    count = tensors[0].shape[0]
    if not 0 <= layer < count:
        raise IndexError(f"there is no layer {layer}: the gates hold {count} (layers times directions)")
    chosen = {name: value[layer, sample] if value.dim() == 4 else value[layer] for name, value in gates.items()}
    shape = next(iter(chosen.values())).shape
    facts = f"layer {layer} of {count} (layers times directions) · {shape[0]} steps, {shape[1]} units"
    signal = options.pop("signal", None)
    signal = _signal(call, sample, shape[0]) if signal is None else signal
    return gates_figure(chosen, signal=signal, title=_title(call, kind, sample), facts=facts, **options)


def _signal(call: Call, sample: int, steps: int) -> Tensor | None:
    """The sample's own input, where it was captured too and batches come first."""
    found = [tensor for _, tensor in walk(call.input)] if "input" in call.kinds else []
    fits = [t[sample] for t in found if t.dim() == 3 and t.shape[1] == steps and sample < t.shape[0]]
    return fits[0] if fits else None


_DRAWN = {"attention": _attention, "gates": _gates}


def show_layers_of_attention(
    store: Store, *, sample: int = 0, tokens: Sequence[str] | None = None, **options: Any
) -> Figure:
    """Every attention in a store: layers by heads, and their rollout."""
    layers: dict[str, Tensor] = {}
    for name in store if "attention" in store.kinds else ():
        found = [tensor for _, tensor in walk(store[name].attention)]
        layers |= {name + (f"[{i}]" if len(found) > 1 else ""): heads_of(t, sample) for i, t in enumerate(found)}
    if not layers:
        raise LookupError(_no_attention(store))
    return attention_figure(layers, **{"tokens": tokens, "title": f"attention of {store.model}, sample {sample}", **options})


def _no_attention(store: Store) -> str:
    if "attention" not in store.kinds:
        return "this store holds no attention; ask for it: capture(model, ..., what='attention')"
    reasons = dict.fromkeys(store[name].why.get("attention", "") for name in store)
    why = next(filter(None, reasons), "no chosen module has attention weights")
    return f"attention was asked of {len(store)} calls and none has any: {why}"
