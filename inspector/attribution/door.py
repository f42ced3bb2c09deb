"""The door: what is asked for is checked here, before any work is done, and made into a question."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from inspector.attribution import explained
from inspector.attribution.methods import Method, of_function
from inspector.attribution.noise import FORMS
from inspector.attribution.places import input_name, known
from inspector.attribution.question import Noise, Question
from inspector.attribution.table import METHODS
from inspector.attribution.targets import Target
from inspector.hooks.capture import _bytes
from inspector.records.samples import as_samples
from inspector.tensors import walk

_COMMON: dict[str, Any] = {
    "seed": 0,
    "budget": 2**30,
    "axes": None,
    "noise": None,
    "noise_samples": 10,
    "noise_form": "mean",
}


def row_of(method: Any) -> tuple[str, Method]:
    if isinstance(method, str):
        return method, METHODS[method]
    return getattr(method, "__name__", type(method).__name__), of_function(method)


def common_options(row: Method, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options that every method has out of ``options``; unknown ones are refused."""
    common = _COMMON | {k: options.pop(k) for k in _COMMON if k in options}
    if row.needs != "as it asks":
        for option in options:
            if option not in row.options:
                there = [*row.options, *_COMMON]
                near = difflib.get_close_matches(option, there, n=1)
                hint = f". Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{name} has no option {option!r}; it has {', '.join(there)}{hint}")
    samples = options.get("n_samples", 1)
    if samples is not None and row.needs != "as it asks" and samples < 1:
        raise ValueError(f"n_samples={samples} draws nothing; take at least 1")
    if common["noise_form"] not in FORMS:
        raise ValueError(
            f"noise_form={common['noise_form']!r} is no way to combine noisy answers; there are {', '.join(FORMS)}"
        )
    return common


def recorded(options: Mapping[str, Any], common: Mapping[str, Any], explain: Any) -> dict[str, Any]:
    """What was asked for beyond the defaults, so that from the record the same can be asked again."""
    noise = {} if common["noise"] is None else {key: common[key] for key in ("noise", "noise_samples", "noise_form")}
    return {**options, **noise} | ({} if explain is None else {"explain": explain})


def check_layer(row: Method, name: str, layer: Any, model: nn.Module) -> None:
    if layer is not None and row.explains == "input" and not row.helped:
        raise ValueError(f"{name} explains inputs, not layers; leave layer out, or take integrated_gradients or saliency")
    if layer is None and (row.explains == "layer" or row.helped):
        raise ValueError(f"{name} needs a layer: say which with layer=..., such as layer={_likely_layer(model)!r}")
    if layer is not None:
        known(model, layer)


def _likely_layer(model: nn.Module) -> str:
    """The last convolution, or else the last module but one."""
    named = [(name, module) for name, module in model.named_modules() if name]
    convolutions: list[str] = [name for name, module in named if isinstance(module, nn.modules.conv._ConvNd)]
    return (convolutions or [name for name, _ in named][:-1] or [""])[-1]


def _check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; give an nn.Module, such as a small one that calls your function"
        )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name!r} is not initialized yet; run the model once, so that explaining it changes nothing")
        if parameter.is_inference():
            raise ValueError(
                f"{name!r} was made under torch.inference_mode, which forbids gradients for ever; make the model outside of "
                "it, or explain copy.deepcopy(model), made outside of it"
            )
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(
                f"{name!r} is on the meta device and holds no numbers, so there is nothing to explain; give it memory with "
                "model.to_empty(device=...) and load its weights"
            )


def ask(model: nn.Module, inputs: Any, target: Any, common: Mapping[str, Any]) -> Question:
    _check_model(model)
    samples = as_samples(inputs, target)
    for leaf, tensor in walk(samples.inputs):
        if tensor.is_meta:
            raise ValueError(
                f"{input_name(leaf)} {tuple(tensor.shape)} is on the meta device and holds no numbers; make it on another"
            )
    if not len(samples):
        raise ValueError("inputs hold no sample (batch of 0); give at least one")
    with torch.inference_mode(False):
        own = explained.private(samples.inputs)
    noise = None if common["noise"] is None else Noise(common["noise"], common["noise_samples"], common["noise_form"])
    return Question(model, samples, own, Target(target, samples), budget=_bytes(common["budget"]) or 2**30, noise=noise)
