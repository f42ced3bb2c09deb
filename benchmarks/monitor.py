"""What does monitoring cost? Paired ratios of step times, beside whether the numbers are right.

    python benchmarks/monitor.py [--rounds 12] [--pairs 3] [--threads 1] [--only NAME] [--tools NAME] [--compiled]
                                 [--device cuda] [--stretch 20]

A step of the plain loop and one of the monitored loop are timed in turn, so that what else the machine does hits both alike
(on a GPU give --stretch 20: steps that run ahead of the device must not be timed one by one). The ratio is of medians, taken
for each place in ten steps on its own, because a monitor does not do the same at each: CPU time of this process with one
thread, time on the wall with several or on a GPU. Where a model lies in memory makes a percent of difference, so the median
of several pairs of models is told; "nothing" is a loop that is not watched, and shows what is left of noise.
"right" says whether a tool's gradient norm of one layer is the one that the optimizer applied, under accumulation over two
micro-batches and clipping; "-" where a tool gives no such number. "bare" reads every output and every gradient once with
torch, and keeps nothing: what any monitor at least has to do.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspector import History, Monitor

Model = tuple[nn.Module, Tensor, Tensor]


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, time_, width = x.shape
        parts = self.qkv(self.norms[0](x)).view(batch, time_, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).reshape(batch, time_, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.norms[1](x))


def gpt() -> Model:
    model = nn.Sequential(nn.Embedding(256, 128), *(Block(128, 4) for _ in range(4)), nn.LayerNorm(128), nn.Linear(128, 256))
    tokens = torch.randint(256, (8, 129))
    return model, tokens[:, :-1], tokens[:, 1:]


class Residual(nn.Module):
    def __init__(self, a: int, b: int, step: int) -> None:
        super().__init__()
        self.conv1, self.norm1, self.act1 = nn.Conv2d(a, b, 3, step, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()
        self.short = nn.Conv2d(a, b, 1, step, bias=False) if a != b else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(h + self.short(x))


def resnet() -> Model:
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Residual(a, b, 2 if a != b else 1) for a, b in itertools.pairwise(widths)]
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), *blocks, *top)
    return model, torch.randn(16, 3, 32, 32), torch.randint(10, (16,))


def mlp() -> Model:
    layers = [layer for _ in range(16) for layer in (nn.Linear(256, 256), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(256, 10)), torch.randn(256, 256), torch.randint(10, (256,))


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(64, 128, num_layers=2, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def lstm() -> Model:
    return Lstm(), torch.randn(32, 50, 64), torch.randint(10, (32,))


MODELS: dict[str, Callable[[], Model]] = {"gpt": gpt, "resnet20": resnet, "mlp": mlp, "lstm": lstm}


class Norms(dict[str, float]):
    """What a tool says the gradient norm of a parameter is; ``log`` is what it wants called after each step."""

    log: Callable[[Tensor], object] | None = None


@contextmanager
def nothing(model: nn.Module) -> Iterator[Norms]:
    yield Norms()


def ours(every: int) -> Callable[[nn.Module], object]:
    @contextmanager
    def monitored(model: nn.Module) -> Iterator[Norms]:
        norms = Norms()
        with tempfile.TemporaryDirectory() as folder, Monitor(model, every=every, to=Path(folder) / "run") as monitor:
            norms.log = lambda loss: monitor.log(loss=loss)
            yield norms
            stats = monitor.history.stats
            for name in stats.where(kind="param_grad").unique("name"):
                rms, n = (stats.line("param_grad", name, statistic)[1] for statistic in ("rms", "n"))
                if len(rms):
                    norms[name] = float(rms[-1] * n[-1] ** 0.5)

    return monitored


@contextmanager
def naive(model: nn.Module) -> Iterator[Norms]:
    """Six numbers a tensor, each fetched at once; gradients from hooks on the parameters."""
    norms = Norms()
    kept: list[float] = []

    def six(x: Tensor) -> None:
        x = x.detach().float()
        numbers = (x.mean(), x.std(), x.min(), x.max(), (x == 0).float().mean(), x.norm())
        kept[:] = [number.item() for number in numbers]

    def forward(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            six(output)

    def gradient(name: str) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            six(grad)
            norms[name] = kept[-1]

        return hook

    handles = [m.register_forward_hook(forward) for m in model.modules()]
    handles += [p.register_hook(gradient(name)) for name, p in model.named_parameters()]
    yield norms
    for handle in handles:
        handle.remove()


@contextmanager
def like_composer(model: nn.Module) -> Iterator[Norms]:
    """Composer's ActivationMonitor: a tensor output is iterated over, so every sample is reduced and fetched alone."""

    def hook(module: nn.Module, args: object, output: object) -> None:
        for value in output if isinstance(output, (Tensor, tuple)) else ():
            if isinstance(value, Tensor) and value.is_floating_point():
                x = value.detach().float()
                (x.norm().item(), x.mean().item(), x.max().item(), (x == 0).float().mean().item())

    handles = [m.register_forward_hook(hook) for m in model.modules() if not list(m.children())]
    yield Norms()
    for handle in handles:
        handle.remove()


@contextmanager
def like_underflow(model: nn.Module) -> Iterator[Norms]:
    """Hugging Face's DebugUnderflowOverflow: extremes of inputs, outputs and weights of every module."""

    def extremes(x: object) -> None:
        if isinstance(x, Tensor) and x.is_floating_point():
            (x.detach().abs().min().item(), x.detach().abs().max().item(), torch.isfinite(x).all().item())

    def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        for value in (*args, output, *module.parameters(recurse=False)):
            extremes(value)

    handles = [m.register_forward_hook(hook) for m in model.modules()]
    yield Norms()
    for handle in handles:
        handle.remove()


@contextmanager
def like_foreach(model: nn.Module) -> Iterator[Norms]:
    """What many training scripts do by hand: the norms of gradients and weights, all fetched at once after backward."""
    norms = Norms()
    parameters = dict(model.named_parameters())

    def log(loss: Tensor) -> None:
        grads = [p.grad for p in parameters.values() if p.grad is not None]
        both = torch.stack([*torch._foreach_norm(grads), *torch._foreach_norm(list(parameters.values()))]).tolist()
        norms.update(zip(parameters, both, strict=False))

    norms.log = log
    yield norms


@contextmanager
def bare(model: nn.Module) -> Iterator[Norms]:
    """One sum of each output and one norm of each gradient, kept nowhere: the floor for whoever looks at all of them."""
    norms = Norms()

    def forward(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            torch.sum(output.detach())

    handles = [m.register_forward_hook(forward) for m in model.modules()]
    norms.log = lambda loss: torch._foreach_norm([p.grad for p in model.parameters() if p.grad is not None])
    yield norms
    for handle in handles:
        handle.remove()


@contextmanager
def wandb_watch(model: nn.Module) -> Iterator[Norms]:
    """wandb.watch(log="all", log_freq=1) in offline mode; the norm is read off the histogram that it logs."""
    import wandb

    norms = Norms()
    os.environ["WANDB_SILENT"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        run = wandb.init(mode="offline", dir=folder)
        logged = run._log

        def log(data: dict[str, object], *args: object, **kwargs: object) -> object:
            for name, value in data.items():
                if name.startswith("gradients/") and isinstance(value, wandb.Histogram):
                    middle = [(a + b) / 2 for a, b in itertools.pairwise(value.bins)]
                    squares = sum(n * x * x for n, x in zip(value.histogram, middle, strict=True))
                    norms[name.removeprefix("gradients/")] = squares**0.5
            return logged(data, *args, **kwargs)

        if RIGHT:
            run._log = log
        run.watch(model, log="all", log_freq=1)
        norms.log = lambda loss: run.log({"loss": loss.item()})
        try:
            yield norms
        finally:
            run.unwatch(model)
            run.finish()


RIGHT: list[str] = []  # names the tool whose numbers are being checked

TOOLS: dict[str, Callable[[nn.Module], object]] = {
    "nothing": nothing,
    "Monitor every=1": ours(1),
    "Monitor every=10": ours(10),
    "bare": bare,
    "norms by hand": like_foreach,
    "naive .item()": naive,
    "wandb.watch": wandb_watch,
    "like composer": like_composer,
    "like HF underflow": like_underflow,
}


def loop(model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, steps: int, norms: Norms) -> None:
    for _ in range(steps):
        output = model(x)
        loss = F.cross_entropy(output.reshape(-1, output.shape[-1]), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if norms.log is not None:
            norms.log(loss.detach())


def clock(given: argparse.Namespace) -> float:
    if given.device != "cpu":
        torch.cuda.synchronize()
    return time.process_time() if given.device == "cpu" and given.threads == 1 else time.perf_counter()


def ratio(make: Callable[[], Model], tool: Callable[[nn.Module], object], given: argparse.Namespace) -> tuple[float, float]:
    """(monitored / plain, milliseconds of a plain step): medians over pairs of models."""
    pairs = [one_pair(make, tool, given) for _ in range(given.pairs)]
    return statistics.median(r for r, _ in pairs), statistics.median(ms for _, ms in pairs)


def one_pair(
    make: Callable[[], Model], tool: Callable[[nn.Module], object], given: argparse.Namespace
) -> tuple[float, float]:
    model, x, y = (part.to(given.device) for part in make())
    torch.compiler.reset()
    both = [torch.compile(m) if given.compiled else m for m in (model, copy.deepcopy(model))]
    optimizers = [torch.optim.SGD(m.parameters(), lr=1e-3) for m in both]
    with tool(both[1]) as norms:  # compiled in here, the plain one too: before, the other would run its code without hooks
        loop(both[0], x, y, optimizers[0], 5, Norms())
        loop(both[1], x, y, optimizers[1], 10 + given.stretch, norms)
        spent: list[list[float]] = [[], []]
        for _ in range(given.rounds * PERIOD):
            for run, optimizer, told, seconds in zip(both, optimizers, (Norms(), norms), spent, strict=True):
                begin = clock(given)
                loop(run, x, y, optimizer, given.stretch, told)
                seconds.append(clock(given) - begin)
    plain, monitored = (typical(seconds) / given.stretch for seconds in spent)
    return monitored / plain, 1000 * plain


PERIOD = 10  # stretches after which a monitor does the same again


def typical(seconds: list[float]) -> float:
    """The mean over the places in a period of the median of what was measured there: a due step is none of the others."""
    return statistics.mean(statistics.median(seconds[place::PERIOD]) for place in range(PERIOD))


def right(tool: Callable[[nn.Module], object]) -> str:
    """Is the norm the one that was applied, under accumulation and clipping?"""
    model, x, y = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    RIGHT.append("on")
    with tool(model) as norms:
        for half in (slice(0, 128), slice(128, 256)):
            (F.cross_entropy(model(x[half]), y[half]) / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        true = model[0].weight.grad.norm().item()
        optimizer.step()
        if norms.log is not None:
            norms.log(torch.zeros(()))
    RIGHT.clear()
    if "0.weight" not in norms:
        return "-"
    near = 0.02 if tool is wandb_watch else 1e-4  # a histogram tells no more
    return "yes" if abs(norms["0.weight"] - true) < near * true else f"no ({norms['0.weight'] / true:.2g}x)"


def size() -> str:
    """Bytes a value on disk, over 100 steps of the MLP."""
    model, x, y = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        with Monitor(model, every=1, to=Path(folder) / "run"):
            loop(model, x, y, optimizer, 100, Norms())
        whole = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        return f"{whole / History.load(Path(folder) / 'run').stats.rows:.1f} bytes a value (MLP, every=1, 100 steps)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="of ten stretches each")
    parser.add_argument("--pairs", type=int, default=3, help="of models, one watched and one not")
    parser.add_argument("--stretch", type=int, default=1, help="steps that are timed together")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="models with this in their name")
    parser.add_argument("--tools", default="", help="tools with this in their name")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    models = {name: make for name, make in MODELS.items() if given.only in name}
    tools = {name: tool for name, tool in TOOLS.items() if given.tools in name}
    where = torch.cuda.get_device_name() if given.device != "cpu" else f"CPU, {given.threads} threads"
    print(f"{where}, torch {torch.__version__}{', compiled' * given.compiled}")
    print(f"{'':20}" + "".join(f"{name:>12}" for name in models) + f"{'right':>12}")
    cells: list[tuple[float, float]] = []
    for label, tool in tools.items():
        try:
            mark = right(tool)  # first: a second run of wandb in one process does not show its histograms
            cells = [ratio(make, tool, given) for make in models.values()]
        except ImportError as error:
            print(f"{label:20}{error}")
            continue
        print(f"{label:20}" + "".join(f"{r:12.3f}" for r, _ in cells) + f"{mark:>12}", flush=True)
    print(f"{'plain step, ms':20}" + "".join(f"{ms:12.1f}" for _, ms in cells))
    print(size())


if __name__ == "__main__":
    main()
