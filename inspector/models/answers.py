"""What a classifier is asked and what it answers: class indices in, class scores out, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from inspector.records.samples import Samples
from inspector.tensors import run


def class_target(samples: Samples) -> Tensor:
    """The target as class indices (batch,); ValueError where there is none or it is something else."""
    target = samples.target
    if not len(samples):
        raise ValueError("there are no samples; give at least one")
    if target is None or target.dim() != 1 or target.is_floating_point() or target.is_complex():
        given = "none" if target is None else f"{target.dtype} {tuple(target.shape)}"
        raise ValueError(f"samples need a target of class indices, an integer tensor ({len(samples)},); there is {given}")
    return target.long()


def class_scores(model: nn.Module, samples: Samples) -> Tensor:
    """One forward on the model's own device: (batch, classes), also from an output that calls them ``logits``.

    Raises ValueError where the model answers something else, or has fewer classes than the target.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    output = run(model, samples.to(device).inputs)
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor) or output.dim() != 2:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model must answer with class scores (batch, classes), not {given}; wrap it so that it does")
    target = class_target(samples)
    if not 0 <= int(target.min()) <= int(target.max()) < output.shape[1]:
        found = f"{int(target.min())} to {int(target.max())}"
        raise ValueError(f"the target goes from {found} but the model scores {output.shape[1]} classes; number them from 0")
    return output


def all_class_scores(model: nn.Module, samples: Samples, batch_size: int) -> Tensor:
    """Class scores of all samples in eval mode and without gradients, on the CPU; leaves the model in eval mode."""
    class_target(samples)  # before any work is done
    model.eval()
    with torch.no_grad():
        parts = [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]
        return torch.cat([class_scores(model, part).cpu() for part in parts])
