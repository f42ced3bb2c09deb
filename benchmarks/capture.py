"""What looking costs, and whether what was seen is right: capture beside hand-written hooks, nnsight and torchlens.

    pip install "inspector[bench]" && python benchmarks/capture.py [--rounds 15] [--only mlp]

Paired: in each round every row runs once on the same model and input, in turn, on one thread; times are processor time,
medians over the rounds, and ratios are medians of the ratios within a round. "right" counts the modules whose stored
values are, bit for bit, what the module answered with when it answered, call by call; a dictionary keeps the last call
only. Opening and closing the block is part of the time, as registering and removing the hooks is of those written by hand;
only where a row says "open", the block was open before the clock started, as in a long run.
Tools that are not installed, or that refuse, say so in their row.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import subprocess
import sys
import time
import warnings
from functools import partial

import torch
from torch import nn

from inspector import Store, borrow, capture
from inspector.records.tables import table
from inspector.tensors import walk

COLUMNS = ["", "ms", "x plain", "x clone hooks", "us a call", "right"]
WHAT = ("outputs", "gradients")
SLOW = 15.0  # seconds after which a row is not run again


def oracle(model, run):
    """Every call's output and its gradient, cloned inside raw hooks: path -> tensors, as the calls ended."""
    outputs, grads, handles = {}, {}, []

    def see(path, module, args, output):
        outputs.setdefault(path, []).extend(t.detach().clone() for _, t in walk(output))
        for _, t in walk(output):
            if t.requires_grad:
                place = grads.setdefault(path, [])
                place.append(None)
                t.register_hook(partial(arrive, place, len(place) - 1))

    def arrive(place, index, grad):
        place[index] = grad.clone()

    for path, module in model.named_modules():
        handles.append(module.register_forward_hook(partial(see, path)))
    run(model)
    for handle in handles:
        handle.remove()
    return outputs, grads


def by_hand(model, run, copying=True, gradients=False):
    """What a researcher writes: a dictionary and a forward hook on each module, with a clone or, as often seen, without."""
    outputs, grads, handles = {}, {}, []

    def see(path, module, args, output):
        outputs[path] = [t.detach().clone() if copying else t.detach() for _, t in walk(output)]
        if gradients:
            for _, t in walk(output):
                if t.requires_grad:
                    t.register_hook(partial(arrive, path))

    def arrive(path, grad):
        grads[path] = [grad.clone()]

    for path, module in model.named_modules():
        handles.append(module.register_forward_hook(partial(see, path)))
    run(model)
    for handle in handles:
        handle.remove()
    return outputs, grads


def inspector(model, run, **options):
    with capture(model, **options) as store:
        run(model)
    return store


def held(store, kind):
    """What a store holds, path -> tensors; a borrowed value that was overwritten says so, and is left out."""
    found = {}
    for call in store.values() if kind in store.kinds else ():
        try:
            found.setdefault(call.site.path, []).extend(t for _, t in walk(getattr(call, kind)))
        except RuntimeError:
            found.setdefault(call.site.path, []).append("refused")
    return found


class Open:
    """A row whose block is open before the clock starts, and closes after it has stopped."""

    def __init__(self, on=None, **options):
        self.on, self.options = on, options

    def __call__(self, model, run):
        return run(model) if self.on else inspector(model, run, **self.options)

    def seconds(self, model, run):
        with capture(self.on or model, **self.options):
            return seconds(run, model)


def seconds(function, *given):
    start = time.process_time()
    function(*given)
    return time.process_time() - start


def with_nnsight(model, run, x, order):
    from nnsight import NNsight

    traced, saved = NNsight(model), {}
    with traced.trace(x):
        for path in order:
            saved[path] = traced.get(path).output.save()
    return {path: [t for _, t in walk(value)] for path, value in saved.items()}, {}


def with_torchlens(model, run, x, order):
    import torchlens

    options = torchlens.options.CaptureOptions(unwrap_when_done=True)
    trace = torchlens.trace(model, x, capture=options)
    return {path: [t for _, t in walk(trace.modules[path].out)] for path in order}, {}


def right(found, seen):
    """How many modules' outputs and gradients are those of the oracle, out of those that have one."""
    if found is None:
        return "-"
    both = (held(found, "output"), held(found, "grad")) if isinstance(found, Store) else found
    return ", ".join(f"{_right(got, true)} {what}" for got, true, what in zip(both, seen, WHAT, strict=True) if got)


def _right(found, seen):
    refused = sum("refused" in values for values in found.values())
    good = sum(len(found.get(path, ())) == len(true) and all(map(same, found[path], true)) for path, true in seen.items())
    return f"{good} of {len(seen)}" + f" ({refused} refused)" * bool(refused)


def same(one, other):
    return (
        isinstance(one, torch.Tensor) and other is not None and one.shape == other.shape and torch.equal(one.detach(), other)
    )


def resnet18():
    import torchvision

    return torchvision.models.resnet18(weights=None).eval(), torch.randn(1, 3, 224, 224)


def transformer():
    layer = nn.TransformerEncoderLayer(128, 8, 256, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).train(), torch.randn(8, 32, 128)


def mlp():
    return nn.Sequential(*[nn.Linear(64, 64) for _ in range(200)]), torch.randn(8, 64)


def training():
    import torchvision

    return torchvision.models.resnet18(weights=None).train(), torch.randn(8, 3, 64, 64)


def small():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), torch.randn(64, 32)


def forward(x, model):
    with torch.no_grad():
        model(x)


def step(x, model):
    model.zero_grad()
    model(x).square().mean().backward()
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(p.grad, alpha=1e-6)


def forward_rows(x, order):
    return {
        "plain forward": lambda model, run: run(model),
        "hooks by hand, clone": by_hand,
        "hooks by hand, no copy": partial(by_hand, copying=False),
        "Inspector, open on another model": Open(on=nn.Identity()),
        "Inspector, snapshot": inspector,
        "Inspector, borrow": partial(inspector, keep=borrow),
        "Inspector, borrow, open": Open(keep=borrow),
        "Inspector, keep=mean": partial(inspector, keep=torch.mean),
        "nnsight": lambda model, run: with_nnsight(model, run, x, order),
        "torchlens": lambda model, run: with_torchlens(model, run, x, order),
    }


def training_rows(x, order):
    return {
        "plain step": lambda model, run: run(model),
        "hooks by hand, outputs": by_hand,
        "hooks by hand, outputs and gradients": partial(by_hand, gradients=True),
        "Inspector, outputs": inspector,
        "Inspector, gradients": partial(inspector, what="grad"),
        "Inspector, outputs and gradients": partial(inspector, what=("output", "grad")),
        "Inspector, both, keep=mean": partial(inspector, what=("output", "grad"), keep=torch.mean),
    }


CASES = {
    "resnet18": (resnet18, forward, forward_rows),
    "transformer": (transformer, forward, forward_rows),
    "mlp": (mlp, forward, forward_rows),
    "training": (training, step, training_rows),
    "small training": (small, step, training_rows),
}


def compared(name, rounds):
    """One case as rows of text: seconds, ratio to the first row, ratio to hand-written clones, cost a call, correctness."""
    torch.manual_seed(0)
    make, go, rows_of = CASES[name]
    model, x = make()
    run = partial(go, x)
    seen = oracle(copy.deepcopy(model), run)
    order = [path for path in seen[0] if path]
    rows, notes = rows_of(x, order), {}
    for label in list(rows):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = rows[label](copy.deepcopy(model), run)
            notes[label] = right(found, without_root(label, seen))
        except ImportError:
            notes[label] = "not installed"
            del rows[label]
        except Exception as error:
            notes[label] = f"{type(error).__name__}: {error}".splitlines()[0][:60]
            del rows[label]
    times = timed(rows, model, run, rounds)
    calls = sum(map(len, seen[0].values()))
    first, clone = list(rows)[:2]
    return [described(label, times, first, clone, calls, notes[label]) for label in notes]


def without_root(label, seen):
    """nnsight and torchlens are asked for the modules inside the model."""
    return tuple({path: t for path, t in one.items() if path} for one in seen) if label in ("nnsight", "torchlens") else seen


def timed(rows, model, run, rounds):
    times = {label: [] for label in rows}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(rounds + 2):
            for label, row in rows.items():
                if sum(times[label]) < SLOW:
                    took = row.seconds(model, run) if isinstance(row, Open) else seconds(row, model, run)
                    times[label] += [took] * (i > 1)
    return times


def described(label, times, first, clone, calls, note):
    if label not in times:
        return [label, "-", "-", "-", "-", note]
    pairs = zip(times[label], times[first], times[clone], strict=False)  # a slow row has fewer rounds
    ratios, clones, costs = zip(*((t / p, t / c, (t - p) / calls * 1e6) for t, p, c in pairs), strict=True)
    middle = statistics.median
    cells = [f"{middle(times[label]) * 1e3:.2f}", f"{middle(ratios):.3f}", f"{middle(clones):.3f}", f"{middle(costs):.1f}"]
    return [label, *cells, note]


def imports(rounds):
    """Fresh processes in turn: the median processor seconds of each import."""

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    codes = ("import torch", "import inspector", "from inspector import capture")
    times = {code: [] for code in codes}
    for _ in range(rounds):
        for code in codes:
            start = spent()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[code].append(spent() - start)
    base = statistics.median(times["import torch"])
    return [[code, f"{statistics.median(t):.2f}", f"{statistics.median(t) / base:.3f}"] for code, t in times.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=[*CASES, "imports"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in [given.only] if given.only else CASES:
        if name in CASES:
            print(f"\n{name}\n{table(COLUMNS, compared(name, given.rounds))}", flush=True)
    if given.only in (None, "imports"):
        print(f"\nimports\n{table(['', 'seconds', 'x torch'], imports(max(5, given.rounds // 2)))}")


if __name__ == "__main__":
    main()
