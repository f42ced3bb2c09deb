"""How good are the monitor's rules? Healthy runs must stay silent, sick ones must be named with their layer and in time.

    python benchmarks/rules.py [--steps 200] [--fresh 1 2 3] [--only NAME] [--real]

Each run trains a small model for a few hundred steps. A sick run has one disease planted at a known step; it counts as
found if the rule that is meant for it names the layer within 50 steps of the onset. The first table is about the runs
that the rules were made with, the second about runs drawn anew (other data, models, rates, onsets) from the given seeds.
With --real the healthy trainings of ``rules_real`` follow: the shipped models by their own recipes to the end, and models of
torchvision and habits that look like diseases; each with a Monitor as it comes, and with all kinds at every step.
"""

from __future__ import annotations

import argparse
import random
import warnings

import rules_fresh
import rules_real
import torch
import torch.nn.functional as F
from rules_further import further
from rules_real import Real
from rules_tuned import HEALTHY, SICK, Run
from torch import Tensor

from inspector import RULES, Finding, Monitor

IN_TIME = 50

Told = list[tuple[int, Finding]]  # each finding with the step at which it was told


def train(run: Run, steps: int) -> Told:
    """The findings of one run."""
    torch.manual_seed(run.seed or len(run.name))
    inputs, labels = run.data()
    model = run.build().to(run.dtype)
    optimizer = run.optimizer(model)
    scaler = torch.amp.GradScaler("cpu", enabled=run.scaler, init_scale=2.0**14)
    told: Told = []
    with Monitor(model, every=run.every, what=run.what) as monitor:
        for step in range(1, steps + 1):
            some = torch.randint(len(inputs), (run.batch,))
            x = inputs[some].to(run.dtype)
            x = run.spoil(step, model, x) if run.spoil else x
            with torch.autocast("cpu", torch.float16, enabled=run.scaler):
                output = model(x).float()
            loss = _loss(output, labels[some]) * (2.0**-12 if run.dtype == torch.float16 else 1.0)
            loss = run.worsen(step, loss, output) if run.worsen else loss
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            told += [(step, finding) for finding in monitor.log(loss=loss)]
    return told


def _loss(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output[:, 0], labels) if labels.is_floating_point() else F.cross_entropy(output, labels)


def judge(run: Run, told: Told) -> tuple[int | None, list[Finding]]:
    """The delay until the disease was named (None: never), and the findings that are about something else."""
    wanted = run.rule.split("|")
    hits = [step for step, f in told if f.rule in wanted and (any(_in(f.name, at) for at in run.layers) or _interval(f))]
    late = [step - run.onset for step in hits if step >= run.onset]
    others = [f for step, f in told if f.rule not in (*wanted, *run.also) or step < run.onset]
    return (min(late) if late else None), others


def _in(name: str, layer: str) -> bool:
    return layer in ("", name) or name.startswith(f"{layer}.")


def _interval(finding: Finding) -> bool:
    """A NaN that was born at a step that was not measured: the right answer is between which steps, not a guess."""
    return finding.rule == "nan" and "born between" in finding.message


def measure(runs: list[Run], steps: int, verbose: bool) -> None:
    """Train all, say how each went, and print the table of rules."""
    alarms: dict[str, int] = dict.fromkeys(RULES, 0)
    hits: dict[str, list[int | None]] = {rule: [] for rule in RULES}
    healthy = sum(not run.rule for run in runs)
    in_healthy = 0
    for run in runs:
        told = train(run, steps)
        delay, others = judge(run, told)
        for finding in others:
            alarms[finding.rule] += 1
        in_healthy += 0 if run.rule else len(others)
        if run.rule:
            hits[run.rule.split("|")[0]].append(delay)
        verdict = "healthy" if not run.rule else f"found after {delay} steps" if delay is not None else "MISSED"
        print(f"{run.name:32} {verdict:24} {'; '.join(sorted({f'{f.rule} {f.name}@{f.step}' for f in others}))}", flush=True)
        if verbose and ((run.rule and (delay is None or delay > IN_TIME)) or others):
            for step, finding in told:
                print(f"    told at {step}: {finding}")
    _table(hits, alarms)
    found = [d is not None and d <= IN_TIME for delays in hits.values() for d in delays]
    print(f"\n{sum(found)} of {len(found)} found in time; {in_healthy} false alarms in {healthy} healthy runs\n", flush=True)


def _table(hits: dict[str, list[int | None]], alarms: dict[str, int]) -> None:
    print(f"\n{'rule':22} {'found':>8} {'delay':>12} {'false alarms':>14}")
    for rule, delays in hits.items():
        found = [d for d in delays if d is not None and d <= IN_TIME]
        spread = f"{min(found)} to {max(found)}" if found else "-"
        print(f"{rule:22} {len(found):>3} of {len(delays):<2} {spread:>12} {alarms[rule]:>14}")


def measure_real(runs: list[Real]) -> None:
    """Say what each is told, as the Monitor comes and with everything measured; the right answer is nothing."""
    total = 0
    for run in runs:
        plain, full = rules_real.train(run)
        total += len(plain) + len(full)
        print(
            f"{run.name:40} {run.steps:>5} steps: {len(plain)} findings, {len(full)} with all kinds at every step",
            flush=True,
        )
        for step, finding in (*plain, *full):
            print(f"    told at {step}: {finding}")
    print(f"\n{total} false alarms in {len(runs)} trainings, each looked at in two ways")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--fresh", type=int, nargs="*", default=[1, 2, 3], help="seeds of the runs drawn anew")
    arguments.add_argument("--only", default="", help="runs whose name holds this; all they say is printed")
    arguments.add_argument("--real", action="store_true", help="also trainings as people run them; a quarter of an hour")
    arguments.add_argument("--verbose", action="store_true")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    tuned = [run for run in (*HEALTHY, *SICK) if given.only in run.name]
    if tuned:
        print("the runs that the rules were made with\n")
        measure(tuned, given.steps, given.verbose)
    fresh: list[Run] = []
    for seed in given.fresh:
        draw = random.Random(seed)
        fresh += [*rules_fresh.healthy(draw), *rules_fresh.sick(draw), *further(draw)]
    fresh = [run for run in fresh if given.only in run.name]
    if fresh:
        print(f"runs drawn anew, seeds {', '.join(map(str, given.fresh))}\n")
        measure(fresh, given.steps, given.verbose)
    if given.real:
        print("healthy trainings as people run them\n")
        measure_real([run for run in rules_real.REAL if given.only in run.name])


if __name__ == "__main__":
    main()
