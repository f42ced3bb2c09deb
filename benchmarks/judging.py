"""Each metric against Quantus and captum.metrics on the reference CNN: seconds, examples, how far values differ.

    pip install "inspector[demo,bench]" && python benchmarks/judging.py [--samples 16]

Paired: both see the same model, digits, maps and, where draws are random, the same draws or the same number of them; each
is run three times in turn and the fastest counts. "bare" is what no metric that asks the model again can go below: the
passes of the same examples and nothing else; for deletion forward passes, channels last and as many examples at once as
suits the caches, for the others forward and backward. Quantus is left out where it is not installed or fails,
and the row says so.
"""

from __future__ import annotations

import argparse
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from inspector import attribute, compare, models
from inspector.metrics import METRICS, fidelity, robustness
from inspector.metrics.surface import surface
from inspector.records import Curve, Samples
from inspector.records.tables import table

EIGHT_METHODS = ("saliency", "input_x_gradient", "integrated_gradients", "smooth_grad", "gradient_shap", "deep_lift",
                 "occlusion", "grad_cam")  # fmt: skip
EIGHT_METRICS = ("deletion", "insertion", "deletion_gap", "infidelity", "completeness", "max_sensitivity", "randomization",
                 "sparseness")  # fmt: skip


REPEATS = 3
CACHED = 48  # examples in one forward pass


@contextmanager
def counted(model):
    """How many examples the model saw inside the block, and how much CPU and wall time the block took."""
    seen = {"examples": 0}

    def count(_, inputs, __):
        seen["examples"] += len(inputs[0])

    handle = model.register_forward_hook(count)
    start = time.process_time(), time.perf_counter()
    try:
        yield seen
    finally:
        seen["cpu"], seen["wall"] = time.process_time() - start[0], time.perf_counter() - start[1]
        handle.remove()


def timed(model, work):
    """What it answers, and the counts of this run."""
    with warnings.catch_warnings(), counted(model) as seen:
        warnings.simplefilter("ignore")
        found = work()
    return found, seen


def pair(name, model, ours, theirs):
    """One row: ours and theirs, timed and counted in turn, with the largest difference of their values."""
    try:
        runs = [(timed(model, ours), timed(model, theirs)) for _ in range(REPEATS)]
    except Exception as error:
        return [name, *["-"] * 6, f"{type(error).__name__}: {error}"[:60]]
    mine, other = ({key: min(run[side][1][key] for run in runs) for key in runs[0][side][1]} for side in (0, 1))
    (found, _), (wanted, _) = runs[-1]
    numbers = [f"{side['cpu']:.3f}" for side in (mine, other)]
    ratios = [f"{other[key] / mine[key]:.1f}" for key in ("cpu", "wall")]
    return [name, *numbers, *ratios, str(mine["examples"]), str(other["examples"]), apart(found, wanted)]


def apart(found, wanted):
    if found is None:
        return "-"
    if wanted is None:
        return "other draws"
    found = (found.area if isinstance(found, Curve) else found).double().numpy()
    return f"{np.nanmax(np.abs(found - np.asarray(wanted, dtype=float))):.1e}"


def bare(model, samples, copies):
    """The passes of ``copies`` explanations by a gradient, a batch at a time, and nothing else."""
    for _ in range(copies):
        x = samples.inputs.clone().requires_grad_()
        torch.autograd.grad(model(x).gather(1, samples.target[:, None]).sum(), x)


@torch.no_grad()
def bare_forward(model, samples, examples):
    """The forward passes of ``examples`` examples and nothing else."""
    copies = -(-CACHED // len(samples))
    some = samples.inputs.repeat(copies, 1, 1, 1)[:CACHED].to(memory_format=torch.channels_last)
    for start in range(0, examples, CACHED):
        model(some[: examples - start])


def rows(model, samples):
    x, y = samples.inputs, samples.target
    maps = attribute(model, samples, method="input_x_gradient")
    heat = maps.heat[:, None].numpy()
    numbers = (x.numpy(), y.numpy(), heat)
    yield pair("deletion, 1 pixel a step", model, lambda: METRICS["deletion"](model, maps, steps=784, baseline=0.0),
               lambda: pixel_flipping(model, *numbers, step=1))  # fmt: skip
    untied = replace(maps, values=maps.values + 1e-4 * torch.randn(x.shape))  # zeros tie, and each breaks ties its way
    same = (*numbers[:2], untied.heat[:, None].numpy())
    yield pair("the same to grey", model, lambda: METRICS["deletion"](model, untied, steps=784, baseline=0.3),
               lambda: pixel_flipping(model, *same, step=1, baseline=0.3))  # fmt: skip
    yield pair("  bare", model, lambda: bare_forward(model, samples, 785 * len(x)),
               lambda: pixel_flipping(model, *same, step=1, baseline=0.3))  # fmt: skip
    yield pair("deletion, 28 pixels a step", model, lambda: METRICS["deletion"](model, maps, steps=28, baseline=0.0),
               lambda: pixel_flipping(model, *numbers, step=28))  # fmt: skip
    yield pair("infidelity (captum)", model, lambda: fidelity.infidelity(model, maps, normalize=False, baseline=0.0),
               lambda: captum_infidelity(model, maps))  # fmt: skip
    yield pair("max_sensitivity (captum)", model, lambda: METRICS["max_sensitivity"](model, maps, draws=10),
               lambda: captum_sensitivity(model, maps))  # fmt: skip
    yield pair("max_sensitivity", model, lambda: METRICS["max_sensitivity"](model, maps, draws=10),
               lambda: quantus_sensitivity(model, *numbers))  # fmt: skip
    yield pair("  bare", model, lambda: bare(model, samples, 10), lambda: quantus_sensitivity(model, *numbers))
    yield pair("randomization, 4 layers", model, lambda: METRICS["randomization"](model, maps, steps=4),
               lambda: quantus_randomization(model, *numbers))  # fmt: skip
    yield pair("  bare", model, lambda: bare(model, samples, 4), lambda: quantus_randomization(model, *numbers))
    yield pair("complexity_rise", model, lambda: METRICS["complexity_rise"](model, maps),
               lambda: quantus_rise(model, *numbers))  # fmt: skip
    yield pair("sparseness", model, lambda: METRICS["sparseness"](model, maps), lambda: plain("Sparseness", model, *numbers))
    yield pair("complexity", model, lambda: METRICS["complexity"](model, maps), lambda: plain("Complexity", model, *numbers))
    marked = Samples(x, y, evidence=x[:, 0] > 0.5)
    told = attribute(model, marked, method="input_x_gradient")
    for mine, other in (("relevance_mass", "RelevanceMassAccuracy"), ("relevance_rank", "RelevanceRankAccuracy"),
                        ("pointing_game", "PointingGame"), ("auroc", "AUC")):  # fmt: skip
        yield pair(mine, model, lambda m=mine: METRICS[m](model, told),
                   lambda o=other: plain(o, model, *numbers, s_batch=marked.evidence[:, None].numpy()))  # fmt: skip


def pixel_flipping(model, x, y, a, step, baseline=0.0):
    import quantus

    metric = quantus.PixelFlipping(features_in_step=step, perturb_baseline=baseline, normalise=False, disable_warnings=True)
    curves = np.array(metric(model=model, x_batch=x, y_batch=y, a_batch=a, device="cpu", softmax=False))
    with torch.no_grad():  # Quantus leaves out the untouched input
        start = model(torch.from_numpy(x)).gather(1, torch.from_numpy(y)[:, None]).numpy()
    whole = np.concatenate([start, curves], 1)
    return np.trapezoid(whole, np.linspace(0, 1, whole.shape[1]), axis=1)


def explained(model, inputs, targets, **_):
    """The same gradients times inputs for both sides, by Captum's own class."""
    from captum.attr import InputXGradient

    x = torch.as_tensor(inputs).requires_grad_()
    return InputXGradient(model).attribute(x, target=torch.as_tensor(targets)).sum(1, keepdim=True).detach().numpy()


def quantus_sensitivity(model, x, y, a):
    import quantus

    radius = 0.05 * float(x.std())
    metric = quantus.MaxSensitivity(nr_samples=10, lower_bound=radius, disable_warnings=True)
    metric(model=model, x_batch=x, y_batch=y, a_batch=a, explain_func=explained, device="cpu")


def quantus_randomization(model, x, y, a):
    import quantus

    metric = quantus.MPRT(abs=False, normalise=False, disable_warnings=True)
    metric(model=model, x_batch=x, y_batch=y, a_batch=a, explain_func=explained, device="cpu")


def quantus_rise(model, x, y, a):
    """The efficient form; its default measures the entropy of the histogram of all values in equal bins, as ours does."""
    import quantus

    metric = quantus.EfficientMPRT(abs=False, normalise=False, disable_warnings=True)
    metric(model=model, x_batch=x, y_batch=y, a_batch=a, explain_func=explained, device="cpu")


def plain(name, model, x, y, a, s_batch=None):
    import quantus

    signed = {} if name in ("Sparseness", "Complexity") else {"abs": True}
    metric = getattr(quantus, name)(normalise=False, disable_warnings=True, **signed)
    return metric(model=model, x_batch=x, y_batch=y, a_batch=a, s_batch=s_batch, device="cpu")


def captum_infidelity(model, maps):
    from captum.metrics import infidelity

    laid, draws = surface(maps), 50
    removed = fidelity.random_removals(laid, fidelity._per_sample(laid, 0.1, draws), 0).float()
    turn = iter(range(draws))

    def perturb(x):
        mask = removed[next(turn)].reshape(x.shape)
        return mask, x * (1 - mask)

    count = len(maps.samples)
    return infidelity(model, perturb, maps.samples.inputs, maps.values, target=maps.samples.target, n_perturb_samples=draws,
                      max_examples_per_batch=count).numpy()  # fmt: skip


def captum_sensitivity(model, maps):
    from captum.attr import InputXGradient
    from captum.metrics import sensitivity_max

    turn, count, x = iter(robustness.nearby(maps, 0.05, 10, 0)), len(maps.samples), maps.samples.inputs
    explain, move = InputXGradient(model).attribute, lambda _: (next(turn),)
    options = {"n_perturb_samples": 10, "max_examples_per_batch": count, "target": maps.samples.target}
    return sensitivity_max(explain, x, move, **options).numpy()


def whole(model, samples):
    """The comparison that a user makes: eight methods by eight metrics."""
    start = time.perf_counter(), time.process_time()
    found = compare(model, samples, methods=EIGHT_METHODS, metrics=EIGHT_METRICS, progress=False)
    return found, time.perf_counter() - start[0], time.process_time() - start[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--no-whole", action="store_true", help="leave out the comparison of eight methods by eight metrics")
    given = parser.parse_args()
    torch.set_num_threads(2)
    model, samples = models.load("cnn"), models.tasks.digits().test[: given.samples]
    METRICS["deletion"](model, attribute(model, samples, method="saliency"))  # warm up
    head = ["metric", "our CPU s", "their CPU s", "CPU ratio", "wall ratio", "our examples", "their examples", "differ by"]
    print(table(head, list(rows(model, samples))), flush=True)
    if not given.no_whole:
        found, seconds, work = whole(model, samples)
        size = f"{len(EIGHT_METHODS)} methods by {len(EIGHT_METRICS)} metrics on {given.samples} digits"
        print(f"\n{size}: {seconds:.1f} s, of CPU time {work:.1f} s\n{found}")


if __name__ == "__main__":
    main()
