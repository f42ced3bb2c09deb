"""What the small nouns say: samples, tasks, scores, one curve, coverage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inspector.records import Coverage, Curve, Samples, Scores, Task
from inspector.tensors import shape_text, walk
from inspector.words.comparison import best_of
from inspector.words.facts import class_name
from inspector.words.say import Say, ended


def tell_samples(s: Samples, say: Say) -> list[str]:
    """How many of what shape, which classes, and what else is known."""
    shapes = say.listing(shape_text(tensor) for _, tensor in walk(s.inputs))
    told = [say.of(len(s), "samples.what", shapes=shapes)]
    if isinstance(s.target, Tensor) and s.target.dim() == 1 and not s.target.is_floating_point() and len(s) > 1:
        classes, counts = torch.unique(s.target, return_counts=True)
        least, most = int(counts.argmin()), int(counts.argmax())
        names = [class_name(s, classes[i].item()) for i in (least, most)]
        sizes = {"fewest": f"{int(counts[least]):,}", "most": f"{int(counts[most]):,}"}
        told.append(say.of(len(classes), "samples.classes", rare=names[0], common=names[1], **sizes))
    if s.evidence is not None:
        told.append(say("samples.evidence", area=say.percent(_share(s.evidence))))
    if s.valid is not None:
        told.append(say("samples.padding", share=say.percent(1 - s.valid.double().mean().item())))
    return [" ".join(told)]


def _share(evidence: Any) -> float:
    masks = torch.cat([mask.reshape(-1) for _, mask in walk(evidence)])
    return masks.double().mean().item()


def tell_task(task: Task, say: Say) -> list[str]:
    """Both halves."""
    halves = {"train": say.of(len(task.train), "count.samples"), "test": say.of(len(task.test), "count.samples")}
    head = say("task.what", name=task.name or say("task.name"), **halves)
    return [f"{head} {ended(task.about[:1].upper() + task.about[1:])}".strip(), *tell_samples(task.test, say)]


def tell_scores(scores: Scores, say: Say) -> list[str]:
    """Each metric with its best label."""
    told = [say.of(len(scores), "scores.what", metrics=say.listing(scores.metrics))]
    for metric in scores.metrics:
        means = {label: scores.interval(label, metric) for label in scores if metric in scores[label]}
        means = {label: interval for label, interval in means.items() if interval.mean == interval.mean}
        better = scores.better(metric)
        if means and better in ("high", "low"):
            best = (max if better == "high" else min)(means, key=lambda label: means[label].mean)
            told.append(best_of(metric, better, best, means[best], len(means), say))
    return told


def tell_curve(curve: Curve, say: Say) -> list[str]:
    """Ends and area of the mean curve."""
    mean = curve.y.double().nanmean(dim=0)
    ends = {"first": say.figure(mean[0].item()), "last": say.figure(mean[-1].item())}
    samples, area = say.of(len(curve.y), "count.samples"), say.figure(curve.area.double().nanmean().item())
    return [say("curve.what", samples=samples, area=area, **ends)]


def tell_coverage(coverage: Coverage, say: Say) -> list[str]:
    """How many ran, and why the others did not."""
    ran = len(coverage) - len(coverage.missing)
    return [" ".join([say.of(len(coverage), "coverage.what", ran=f"{ran:,}"), *missed(coverage, say)])]


def missed(coverage: Coverage, say: Say) -> list[str]:
    """A sentence for the chosen modules that never ran, with their reasons; none where all did."""
    missing = coverage.missing
    named = [say("store.reason", name=say.module(path), reason=status.reason) for path, status in missing.items()]
    return [say.of(len(missing), "store.missing", reasons=say.listing(named))] if missing else []
