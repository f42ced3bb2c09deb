"""The whole house in one walk: load (or train) a model, judge it, look inside, explain it, and judge the explanations.

It is written as a user would write it, one public verb after the other, so that it can be read as an example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inspector import capture, compare, models, report, show
from inspector.monitor import Monitor
from inspector.records import Assessment, Comparison, History, Samples, Store, Summary, Task
from inspector.summary import summary
from inspector.viz import Figure, plot_attention
from inspector.viz.scales import colour_bar, sequential

SAMPLES = 12  # explained per model; deletion and insertion cost a few hundred runs each
GRADIENTS = ("saliency", "input_x_gradient", "integrated_gradients")

TITLES = {
    "cnn": "CNN: digits as images",
    "lstm": "LSTM: digits read row by row",
    "attention": "Attention over an LSTM's states",
}
METHODS = {
    "cnn": (*GRADIENTS, "deep_lift", "occlusion", "grad_cam"),
    "lstm": (*GRADIENTS, "occlusion"),
    "attention": (*GRADIENTS, "occlusion"),
}

Tell = Callable[[float, str], None]  # share of the work done, and what comes next


@dataclass
class Chapter:
    """What was found out about one model."""

    name: str
    task: Task
    summary: Summary
    assessment: Assessment
    store: Store
    closer: Figure
    comparison: Comparison
    training: list[History] = field(default_factory=list)

    @property
    def records(self) -> dict[str, Any]:
        """Everything that has a picture, by the name of its file."""
        trained = {f"training-{history.unit}s": history for history in self.training}
        found = {"assessment": self.assessment, "inside": self.store, "explanations": self.comparison}
        pictures = found | {CLOSER[self.name][0]: self.closer} | trained
        return {f"{self.name}-{name}": record for name, record in pictures.items()}


@dataclass
class Demo:
    """The folder that was written, its page, and the chapters."""

    folder: Path
    page: Path
    chapters: list[Chapter]


def demo(names: Iterable[str], *, train: bool = False, out: str | Path = "inspector-demo", tell: Tell) -> Demo:
    """Walk through the named models ("cnn", "lstm", "attention") and write pictures and a page into a new folder.

    train: train them anew first. An existing folder is kept and a numbered sibling is written.
    Raises LookupError for other names.
    """
    names = list(names)
    unknown = [name for name in names if name not in TITLES]
    if unknown or not names:
        raise LookupError(f"demo has no {', '.join(unknown) or 'models'}; it has {', '.join(TITLES)} and all")
    folder = new_folder(Path(out))
    chapters = []
    for i, name in enumerate(names):
        chapters.append(chapter(name, folder, train=train, tell=_part(tell, i, len(names) + 0.3)))
        draw(chapters[-1], folder)
    tell(len(names) / (len(names) + 0.3), "writing the page")
    page = report(folder / "report.html", *(part for c in chapters for part in story(c)), title="Three models, inspected")
    tell(1.0, "done")
    return Demo(folder, page, chapters)


def chapter(name: str, folder: Path, *, train: bool, tell: Tell) -> Chapter:
    """Everything about one model."""
    task = models.shipped.MODELS[name].task()
    model, training = _trained(name, folder, tell) if train else (models.load(name), [])
    tell(0.5 if train else 0.05, f"{name}: judging it on {len(task.test)} held-out samples")
    assessment = models.assess(model, task)
    few = task.test[:SAMPLES]
    tell(0.55 if train else 0.15, f"{name}: looking inside")
    store = look_inside(model, few)
    structure = summary(model, few)
    start = 0.6 if train else 0.25

    def share(done: int, total: int, label: str) -> None:
        tell(start + (0.95 - start) * done / total, f"{name}: explaining, {label}")

    comparison = compare(model, few, target=_predicted(model, few), methods=METHODS[name], progress=share)
    tell(0.95, f"{name}: drawing")
    return Chapter(name, task, structure, assessment, store, CLOSER[name][1](model, few), comparison, training)


def look_inside(model: nn.Module, samples: Samples) -> Store:
    """Activations and gradients of every module for the score of the true class."""
    with capture(model, "*", what=("output", "grad")) as store:
        scores = model(samples.inputs)
        scores.gather(1, samples.target[:, None]).sum().backward()  # type: ignore[index]  # the digits have targets
    model.zero_grad(set_to_none=True)
    return store


def feature_maps(model: nn.Module, samples: Samples) -> Figure:
    """What the channels of the first block make of one digit."""
    with capture(model, "blocks.0.relu") as store:
        model(samples.inputs)
    return show(store["blocks.0.relu"])


def gates(model: nn.Module, samples: Samples) -> Figure:
    """What the LSTM lets in, keeps and gives out while it reads one digit."""
    with capture(model, "lstm", what=("input", "output", "gates")) as store:
        model(samples.inputs)
    return show(store["lstm"])


def looks(model: nn.Module, samples: Samples) -> Figure:
    """Where each step looks back to, for one digit."""
    with capture(model, "softmax") as store:
        model(samples.inputs)
    weights, figure = store.at("softmax")[0], Figure(natural=(6.4, 5.6))
    ax, scale = figure.add_subplot(), sequential(weights)
    colour_bar(ax, plot_attention(weights, scale=scale, ax=ax), scale, "share of the look")
    figure.head(
        "Attention of the softmax, sample 0", "a row for each step of the LSTM, which looks at all rows of the digit"
    )
    figure.foot("Attention says where a layer reads from, not what made the model decide.")
    return figure


CLOSER: dict[str, tuple[str, Callable[[nn.Module, Samples], Figure]]] = {
    "cnn": ("maps", feature_maps),
    "lstm": ("gates", gates),
    "attention": ("weights", looks),
}


def story(found: Chapter) -> list[Any]:
    """The sections of the page."""
    test = len(found.task.test)
    opening = f"# {TITLES[found.name]}\n\nLearned from {found.task.about}; judged on {test} that it never saw."
    return [opening, found.assessment, found.comparison, found.store, found.closer, *found.training, found.summary]


def draw(found: Chapter, folder: Path) -> list[Path]:
    """One PNG per record."""
    paths = {folder / f"{name}.png": record for name, record in found.records.items()}
    for path, record in paths.items():
        (record if isinstance(record, Figure) else show(record)).savefig(path, dpi=144)
    return list(paths)


def new_folder(wanted: Path) -> Path:
    """``wanted``, or a sibling with a number where that exists already; made empty."""
    number, folder = 1, wanted
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _trained(name: str, folder: Path, tell: Tell) -> tuple[nn.Module, list[History]]:
    """Trained by the recipe under a Monitor, whose run folder stays for ``inspector watch``."""
    row = models.shipped.MODELS[name]
    model = models.shipped.build(name)

    def epoch(number: int, scalars: Any) -> None:
        monitor.log(**scalars)
        numbers = ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in scalars.items())
        tell(0.5 * number / row.epochs, f"{name}: epoch {number} of {row.epochs}, {numbers}")

    with Monitor(model, every=10, to=folder / f"{name}-run") as monitor:
        epochs = models.fit(model, row.task(), epochs=row.epochs, lr=row.lr, batch_size=row.batch_size, progress=epoch)
    return model.eval(), [epochs, monitor.history]


def _predicted(model: nn.Module, samples: Samples) -> torch.Tensor:
    with torch.no_grad():
        return model(samples.inputs).argmax(1)  # type: ignore[no-any-return]  # modules answer with anything


def _part(tell: Tell, index: int, parts: float) -> Tell:
    """Progress within one part as progress of the whole."""
    return lambda done, label: tell((index + done) / parts, label)
