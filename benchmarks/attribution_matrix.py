"""Every method on every family of models: an answer with its completeness error, or the reason why not.

``python benchmarks/attribution_matrix.py`` prints the table, in about two minutes on two cores; ``--to FILE`` writes it as
Markdown.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inspector import METHODS, Attribution, attribute, models

HEAD = [
    *("# Every method on every family", ""),
    "Written by `benchmarks/attribution_matrix.py`, on untrained models, with a baseline of zero. *sum*: how far the values",
    "are from summing to the difference of outputs, as a share of it, where the method claims that they do. *Captum*: the",
    "largest difference from Captum's class, as a share of the largest value, where the method is deterministic and Captum",
    "has it: `raises` where Captum does, `does not sum` where it is wrong by its own claim, `shape` where its answer has",
    "other axes. Two sound answers of deep_lift may differ at a MaxPool; in guided_backprop and deconvolution, Captum",
    "misses ReLUs that are no modules. Closed forms and planted evidence are held by the tests.",
    "",
]


class Encoder(nn.Module):
    """A stock transformer encoder that reads the mean of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x).mean(1))  # type: ignore[no-any-return]  # a tensor


class Recommender(nn.Module):
    """A user, an item and numbers, one score."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(50, 8), nn.Embedding(80, 8)
        self.body = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, user: Tensor, item: Tensor, numbers: Tensor) -> Tensor:
        return self.body(torch.cat([self.user(user), self.item(item), numbers], 1))[:, 0]  # type: ignore[no-any-return]


class Case:
    """A model, a batch, the class to explain, the layer for methods that need one, and the one that attends if another."""

    def __init__(self, model: nn.Module, inputs: Any, layer: str, target: Any = 1, attends: str | None = None) -> None:
        self.model, self.inputs, self.layer, self.target = model.eval(), inputs, layer, target
        self.attends = attends or layer


def cases() -> dict[str, Callable[[], Case]]:
    """The families, each made when it is asked for."""
    from torchvision.models import resnet18

    numbers = {"user": torch.tensor([1, 2]), "item": torch.tensor([3, 4]), "numbers": torch.randn(2, 4)}
    mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return {
        "CNN": lambda: Case(models.CNN(), torch.randn(2, 1, 28, 28), "blocks"),
        "LSTM": lambda: Case(models.LSTMClassifier(), torch.randn(2, 28, 28), "lstm:output[0]"),
        "attention": lambda: Case(models.AttentionClassifier(), torch.randn(2, 28, 28), "lstm:output[0]", attends="softmax"),
        "tokens": lambda: Case(
            models.AttentionClassifier(vocabulary=30), torch.randint(1, 30, (2, 12)), "project", attends="softmax"
        ),
        "resnet18": lambda: Case(resnet18(), torch.randn(2, 3, 64, 64), "layer4"),
        "vision transformer": lambda: Case(vit(), torch.randn(2, 3, 64, 64), "encoder.layers.encoder_layer_1"),
        "encoder": lambda: Case(Encoder(), torch.randn(2, 7, 16), "encoder.layers.1"),
        "MLP": lambda: Case(mlp, torch.randn(2, 8), "0"),
        "recommender": lambda: Case(Recommender(), numbers, "body.0", None),
    }


def vit() -> nn.Module:
    """torchvision's vision transformer, of two layers, with a head that is not zero as it comes."""
    from torchvision.models import VisionTransformer

    model = VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128)
    head: Any = model.get_submodule("heads.head")
    nn.init.normal_(head.weight, std=0.02)
    return model  # type: ignore[no-any-return]  # torchvision is untyped


def cell(case: Case, method: str) -> str:
    """One cell: "ok", with the completeness error where it is claimed and how far Captum is, or the reason for a refusal."""
    row = METHODS[method]
    options = {"n_samples": 10} if "n_samples" in row.options else {}
    options |= perturbed(case, method)
    place = case.attends if row.needs == "attention" else case.layer
    layer = place if row.explains == "layer" or row.helped else None
    try:
        answer = attribute(case.model, case.inputs, target=case.target, method=method, layer=layer, **options)
    except (ValueError, LookupError) as error:
        return f"refused: {error}"
    return ", ".join(["ok", *([f"sum {off(answer):.0e}"] if row.complete else []), *captums(case, answer, layer, options)])


def perturbed(case: Case, method: str) -> dict[str, Any]:
    """Windows and features that ours and Captum's share."""
    if not isinstance(case.inputs, Tensor) or not case.inputs.is_floating_point():
        return {"feature_mask": "grid"} if method == "feature_ablation" else {}
    shape = tuple(case.inputs.shape[1:])
    cells = {3: (1, -(-shape[-1] // 7), -(-shape[-1] // 7)), 2: (1, 1), 1: (1,)}[len(shape)]
    whole = {3: (shape[0],), 2: (), 1: ()}[len(shape)]
    window = {3: (*whole, *cells[1:]), 2: (-(-shape[0] // 7), shape[-1]), 1: (1,)}[len(shape)]
    if method == "occlusion":
        return {"sliding_window_shapes": window, "strides": window}
    if method != "feature_ablation":
        return {}
    places = [torch.arange(n) // w for n, w in zip(shape, window, strict=True)]
    mask = torch.zeros(shape, dtype=torch.long)
    for axis, place in enumerate(places):
        mask = mask * (int(place.max()) + 1) + place.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return {"feature_mask": mask}


DRAWN = ("NoiseTunnel", "GradientShap", "DeepLiftShap", "FeaturePermutation", "ShapleyValueSampling", "KernelShap", "Lime")


def captums(case: Case, answer: Attribution, layer: str | None, options: dict[str, Any]) -> list[str]:
    """How far Captum's answer is from ours, or why it has none."""
    row = METHODS[answer.method]
    if not row.captum or row.captum in DRAWN:
        return []
    try:
        theirs = from_captum(case, row.captum, answer.method, layer, options)
    except Exception:  # whatever it is that Captum does not do
        return ["Captum raises"]
    ours = answer.values
    if not isinstance(theirs, Tensor) or theirs.shape != ours.shape:
        return ["Captum: shape"]
    gap = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-12))
    if row.complete and answer.delta is not None:
        total = theirs.flatten(1).sum(1) - (ours.flatten(1).sum(1) - answer.delta)
        if total.abs().max() > 10 * answer.delta.abs().max() and gap > 1e-3:
            return [f"Captum {gap:.0e}, does not sum"]
    return [f"Captum {gap:.0e}"]


def from_captum(case: Case, name: str, method: str, layer: str | None, options: dict[str, Any]) -> Any:
    """Captum's answer, of a copy of the model, because it leaves traces on what it fails at."""
    import captum.attr

    model = copy.deepcopy(case.model)
    place = [] if layer is None else [model.get_submodule(layer)]
    if "feature_mask" in options:
        options = {"feature_mask": options["feature_mask"][None]}
    target = {} if name == "LayerActivation" else {"target": case.target}
    return getattr(captum.attr, name)(model, *place).attribute(case.inputs.clone(), **target, **options).detach()


def off(answer: Attribution) -> float:
    """The completeness error as a share of the difference of outputs."""
    assert answer.delta is not None
    values = answer.values if isinstance(answer.values, (tuple, dict)) else (answer.values,)
    parts = values.values() if isinstance(values, dict) else values
    total = sum(part.flatten(1).sum(1) for part in parts)
    return float((answer.delta.abs() / (total - answer.delta).abs().clamp(min=1e-9)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, help="write Markdown here")
    parser.add_argument("--only", nargs="*", help="families, by name")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    found = {name: make() for name, make in cases().items() if not chosen.only or name in chosen.only}
    reasons: dict[str, int] = {}
    start = time.perf_counter()
    lines = ["| method | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for method in METHODS:
        cells = []
        for case in found.values():
            text = cell(case, method)
            if text.startswith("refused"):
                text = f"refused [{reasons.setdefault(text, len(reasons) + 1)}]"
            cells.append(text)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    print(f"{time.perf_counter() - start:.0f} s")
    notes = [f"{number}. {text.removeprefix('refused: ')}" for text, number in reasons.items()]
    print("\n".join(notes))
    if chosen.to:
        chosen.to.write_text("\n".join([*HEAD, *lines, "", *notes]) + "\n")


if __name__ == "__main__":
    main()
