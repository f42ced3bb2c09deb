"""What the small nouns say: samples, tasks, scores, one curve, coverage."""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.records import Coverage, Curve, Samples, Scores, Task
from inspector.tensors import shape_text, walk
from inspector.words.facts import class_name
from inspector.words.say import Say, figure, percent, plural


def tell_samples(s: Samples, say: Say) -> list[str]:
    """How many of what shape, which classes, and what else is known."""
    shapes = say.listing(shape_text(tensor) for _, tensor in walk(s.inputs))
    told = [say("samples.what", n=f"{len(s):,}", s=plural(len(s)), shapes=shapes)]
    if isinstance(s.target, Tensor) and s.target.dim() == 1 and not s.target.is_floating_point() and len(s.target):
        classes, counts = torch.unique(s.target, return_counts=True)
        least, most = int(counts.argmin()), int(counts.argmax())
        names = [class_name(s, classes[i].item()) for i in (least, most)]
        sizes = {"fewest": f"{int(counts[least]):,}", "most": f"{int(counts[most]):,}"}
        told.append(say("samples.classes", classes=len(classes), rare=names[0], common=names[1], **sizes))
    if s.evidence is not None:
        told.append(say("samples.evidence", area=percent(s.evidence.double().mean().item())))
    if s.valid is not None:
        told.append(say("samples.padding", share=percent(1 - s.valid.double().mean().item())))
    return [" ".join(told)]


def tell_task(task: Task, say: Say) -> list[str]:
    """Both halves."""
    head = say("task.what", name=task.name or "A task", train=f"{len(task.train):,}", test=f"{len(task.test):,}")
    return [f"{head} {task.about}".strip(), *tell_samples(task.test, say)]


def tell_scores(scores: Scores, say: Say) -> list[str]:
    """Each metric with its best label."""
    told = [say("scores.what", labels=len(scores), metrics=say.listing(scores.metrics))]
    for metric in scores.metrics:
        means = {label: scores.interval(label, metric) for label in scores if metric in scores[label]}
        means = {label: interval for label, interval in means.items() if interval.mean == interval.mean}
        better = scores.better(metric)
        if means and better in ("high", "low"):
            best = (max if better == "high" else min)(means, key=lambda label: means[label].mean)
            mean, low, high = map(figure, means[best])
            told.append(say("comparison.best", metric=metric, better=better, label=best, mean=mean, low=low, high=high))
    return told


def tell_curve(curve: Curve, say: Say) -> list[str]:
    """Ends and area of the mean curve."""
    mean = curve.y.double().nanmean(dim=0)
    ends = {"first": figure(mean[0].item()), "last": figure(mean[-1].item())}
    return [say("curve.what", n=f"{len(curve.y):,}", area=figure(curve.area.double().nanmean().item()), **ends)]


def tell_coverage(coverage: Coverage, say: Say) -> list[str]:
    """How many ran, and why the others did not."""
    missing = coverage.missing
    told = [say("coverage.what", ran=f"{len(coverage) - len(missing):,}", n=f"{len(coverage):,}")]
    if missing:
        reasons = say.listing(f"{path or '(model)'} ({status.reason})" for path, status in missing.items())
        told.append(say("store.missing", count=f"{len(missing):,}", s=plural(len(missing)), reasons=reasons))
    return [" ".join(told)]
