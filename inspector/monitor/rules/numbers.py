"""Rules about numbers that are no numbers: where a NaN or an infinity was born."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.records.history import Finding, History

_SOURCE = "first call with finite inputs and a non-finite output, as in Hugging Face's debug_utils"


def nan(history: History) -> Iterator[Finding]:
    """NaN or Inf in outputs, gradients or parameters, and the first module in execution order that made one."""
    step = _first_bad_step(history)
    if step is None:
        return
    missed = _missed(history, step)
    if missed is not None:
        yield missed
        return
    for kind in ("output", "grad"):
        born = dict(_at(history, kind, "born", step))
        if any(born.values()):
            name = max(born, key=lambda n: born[n])  # 1: its inputs were finite; 0.5: the first in execution order
            yield _finding(history, kind, name, step, by_order=born[name] < 1.0)
            return
    yield _unborn(history, step)


def _first_bad_step(history: History) -> int | None:
    watched, norms = history.watch.get("grad_norm", (np.array([]), np.array([])))
    every = np.concatenate([history.stats.steps_above(0.0, "nan", "inf"), watched[~np.isfinite(norms)]])
    return int(every.min()) if len(every) else None


_KINDS = ("output", "grad", "param_grad", "param", "update", "state")


def _at(history: History, kind: str, statistic: str, step: int) -> list[tuple[str, float]]:
    rows = history.stats.where(kind=kind, statistic=statistic, step=step)
    return list(zip(rows["name"].tolist(), rows["value"].tolist(), strict=True))


def _bad(history: History, kind: str, step: int) -> list[str]:
    found = dict(_at(history, kind, "nan", step))
    for name, value in _at(history, kind, "inf", step):
        found[name] = found.get(name, 0.0) + value
    return [name for name, value in found.items() if value > 0]


def _missed(history: History, step: int) -> Finding | None:
    """The gradients of a step that was not measured were not finite: all that is known is when, not where."""
    measured = history.stats.steps
    if step in measured:
        return None
    before = measured[measured < step]
    since = int(before.max()) if len(before) else 0
    message = (
        f"the applied gradient was not finite at step {step}, which was not measured; the last one that was, {since}, was "
        f"still finite, so a NaN or Inf was born between {since} and {step}"
    )
    return Finding("nan", "", step, 1.0, 0.0, message, "Run again with every=1, which names the module.", _SOURCE)


def _finding(history: History, kind: str, name: str, step: int, *, by_order: bool) -> Finding:
    bad_parameters = [p for p in _bad(history, "param", step) if p.rpartition(".")[0] == name]
    what = "output" if kind == "output" else "gradient of the output"
    where = f"the {what} of {name or 'the model'} has NaN or Inf"
    if by_order:
        where += _by_order(history, kind, name, step)
    elif kind == "output":
        where += " though its inputs are finite"
    if bad_parameters:
        where += f"; its parameter {bad_parameters[0]} is not finite either"
    before = _before(history, kind, name, step)
    advice = (
        "Look for a division, log, sqrt or exp there, for a too high learning rate, or for a range that fp16 cannot hold."
    )
    return Finding("nan", name, step, float(len(_bad(history, kind, step))), 0.0, where + before, advice, _SOURCE)


def _by_order(history: History, kind: str, name: str, step: int) -> str:
    """In a compiled model inputs are not looked at: what came before in the step was finite, and that is all."""
    ran = [other for other, _ in _at(history, kind, "absmax", step)]
    place = ran.index(name)
    if place:
        return f", the first by execution order: born there, or between {ran[place - 1] or 'the model'} and it"
    return ", the first by execution order: born there, or before it" + (" (in the data)" if kind == "output" else "")


def _before(history: History, kind: str, name: str, step: int) -> str:
    """The last frames: how large it was when it was last finite, and what ran just before it in this step."""
    steps, sizes = history.stats.line(kind, name, "absmax")
    good = np.flatnonzero(np.isfinite(sizes) & (steps < step))[-3:]
    told = [f"{sizes[i]:.3g} at step {steps[i]}" for i in good]
    ran = _at(history, kind, "absmax", step)
    place = [other for other, _ in ran].index(name) if name in dict(ran) else 0
    frames = [f"{other or 'the model'} {size:.3g}" for other, size in ran[max(place - 3, 0) : place]]
    return (f"; its largest magnitude was {', '.join(told)}" if told else "") + (
        f"; largest in what ran just before it: {', '.join(frames)}" if frames else ""
    )


def _too_large(history: History, step: int) -> Finding:
    sizes = dict(_at(history, "param_grad", "absmax", step))
    name = max(sizes, key=lambda n: sizes[n], default="")
    message = (
        f"the norm of the applied gradient is infinite at step {step}: each single gradient is still finite, the largest in "
        f"{name or 'the model'} ({sizes.get(name, float('nan')):.3g}), but their squares are beyond float32"
    )
    return Finding("nan", name, step, 1.0, 0.0, message, "Lower the learning rate, or clip the gradient norm.", _SOURCE)


def _unborn(history: History, step: int) -> Finding:
    """Something is not finite, and no measured call made it out of finite inputs."""
    if _bad(history, "output", step):
        message, name = "the model's inputs (or a buffer) already hold NaN or Inf", _bad(history, "output", step)[0]
        advice = "Check the data of this step."
    elif not any(_bad(history, kind, step) for kind in _KINDS):
        return _too_large(history, step)
    else:
        kind, names = next((k, _bad(history, k, step)) for k in _KINDS if _bad(history, k, step))
        name = names[-1] if kind == "param_grad" else names[0]
        message = f"{kind} of {name} has NaN or Inf while all measured outputs are finite"
        advice = "It was born in backward at or after this place; what=('output', 'grad', 'param_grad') names the module."
    return Finding("nan", name, step, 1.0, 0.0, message, advice, _SOURCE)
