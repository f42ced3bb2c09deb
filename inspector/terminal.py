"""What a user types at the terminal as what the verbs take: inputs and records by name or by file.

Nothing downloads, and no file is read in a way that could run code: inputs hold tensors only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inspector import records
from inspector.archive import ArchiveError
from inspector.loading import saying, tensors_in
from inspector.models import shipped, tasks
from inspector.models.vision import torchvision
from inspector.tensors import run, walk

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
TASKS = ("digits", "digit_rows", "planted_patches", "planted_steps", "planted_words")
FEW = 12  # samples where none were named

_TASK = re.compile(r"(\w+)(?::(\d+)(?:-(\d+))?)?")
_SHAPE = re.compile(r"\d+([,x]\d+)*")


def samples_from(sources: Sequence[str], model: str) -> records.Samples:
    """Image, .npy and .safetensors files, or samples of a task such as ``digits:0-7``, as one batch.

    Without sources: the first samples of the shipped model's own task. Images get what torchvision's weights of the
    same name were trained with; for another model they are RGB in 0 to 1, for the digits model 28x28 grey.
    """
    if not sources:
        return _own_task(model)
    task = _TASK.fullmatch(sources[0])
    if len(sources) == 1 and task and task[1] in TASKS and not Path(sources[0]).exists():
        return _of_task(task[1], task[2], task[3])
    batches = [_read(Path(source), model) for source in sources]
    return batches[0] if len(batches) == 1 else _joined(batches, sources)


def record_from(path: str) -> Any:
    """Whatever record a file holds, or the history in the folder of a run; its header says which."""
    if Path(path).is_dir():
        return records.History.load(path)
    kind = _kind(path)
    if kind not in records.__all__ or not hasattr(getattr(records, kind), "load"):
        raise ArchiveError(f"{path} holds a {kind}, which is no record that can be shown")
    return getattr(records, kind).load(path)


def _own_task(model: str) -> records.Samples:
    if model not in shipped.MODELS:
        raise ValueError(f"{model!r} has no samples of its own; give some with --input: files, or a task such as digits:0-7")
    return shipped.MODELS[model].task().test[:FEW]


def _of_task(name: str, first: str | None, last: str | None) -> records.Samples:
    test = getattr(tasks, name)().test
    start = int(first or 0)
    stop = int(last) if last else (start if first else FEW - 1)
    if not start <= stop < len(test):
        raise IndexError(f"{name} has test samples 0 to {len(test) - 1}, not {start} to {stop}")
    return test[start : stop + 1]  # type: ignore[no-any-return]  # the task was chosen by its name


def _read(path: Path, model: str) -> records.Samples:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give image, .npy or .safetensors files, or a task such as digits:0-7")
    if path.suffix in (".npy", ".safetensors"):
        values = _array(path) if path.suffix == ".npy" else _tensors(path)
        broken = sum(int((~torch.isfinite(tensor)).sum()) for _, tensor in walk(values))
        if broken:
            raise ValueError(f"{path} holds {broken:,} values that are NaN or infinite, of which no model can make sense")
        return records.Samples(values)
    if path.suffix.lower() in IMAGES:
        return records.Samples(_image(path, model)[None])
    raise ValueError(f"{path} is of no kind that can be read: images, .npy and .safetensors can")


def _array(path: Path) -> Tensor:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is no array of numbers; pickled arrays are not read") from error
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)


def _tensors(path: Path) -> Any:
    """One tensor alone, several by keyword."""
    found = tensors_in(path)
    return next(iter(found.values())) if len(found) == 1 else found


def _image(path: Path, model: str) -> Tensor:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        if model.startswith("torchvision:"):
            models = torchvision("models", model)
            prepare = models.get_model_weights(model.partition(":")[2]).DEFAULT.transforms()
            return prepare(image.convert("RGB"))  # type: ignore[no-any-return]  # torchvision is untyped
        grey = model in shipped.MODELS
        pixels = np.asarray(image.convert("L").resize((28, 28)) if grey else image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None] if grey else torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _joined(batches: list[records.Samples], sources: Sequence[str]) -> records.Samples:
    tensors = [batch.inputs for batch in batches]
    shapes = {tuple(t.shape[1:]) for t in tensors if isinstance(t, Tensor)}
    if len(shapes) != 1 or not all(isinstance(t, Tensor) for t in tensors):
        raise ValueError(f"{', '.join(sources)} cannot be one batch: their shapes are {sorted(shapes)}; make them equal")
    return records.Samples(torch.cat(tensors))


def _kind(path: str) -> str:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give a file that a record's .save() wrote, or the folder of a run")
    try:
        with safe_open(path, framework="pt") as file:
            return str(json.loads((file.metadata() or {})["inspector"])["kind"])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ArchiveError(f"{path} is no record of Inspector's, or is truncated ({error})") from error


def summary_inputs(model: str, sources: Sequence[str], shape: str) -> Any:
    """What a summary runs the model on: numbers of a shape, the given files, one image of the size that a torchvision
    classifier is trained on, or None where there is nothing to go by."""
    if shape:
        if not _SHAPE.fullmatch(shape):
            raise ValueError(f"--shape {shape} is no shape; give sizes, the batch first, such as 1,3,224,224")
        return _noise(*(int(size) for size in re.split("[,x]", shape)))
    if sources or model in shipped.MODELS:
        return samples_from(sources, model).inputs
    return _usual_image(model.partition(":")[2]) if model.startswith("torchvision:") else None


def _noise(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0))


def _usual_image(name: str) -> Tensor | None:
    from torchvision.transforms._presets import ImageClassification

    prepare = torchvision("models", name).get_model_weights(name).DEFAULT.transforms()
    return _noise(1, 3, prepare.crop_size[0], prepare.crop_size[0]) if isinstance(prepare, ImageClassification) else None


def predicted(model: nn.Module, samples: records.Samples) -> Tensor | None:
    """The class that the model says for each sample; None where its output is no table of class scores."""
    with torch.no_grad(), saying(f"{type(model).__name__} cannot run on the inputs"):
        output = run(model, samples.inputs)
    return output.argmax(1) if isinstance(output, Tensor) and output.dim() == 2 else None


def names(words: Sequence[str] | None) -> list[str]:
    """Names given one by one or with commas between them."""
    return [name for word in words or [] for name in word.replace(",", " ").split()]
