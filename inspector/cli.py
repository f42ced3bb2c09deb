"""The same verbs at the terminal: ``inspector demo``, ``summary``, ``compare``, ``watch``, ``report`` and ``methods``.

typer and rich come with the extra "demo" and are loaded when a command runs. Until then annotations stay text, so that
this module can be imported without them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    import typer  # noqa: TC004  # _app puts it where typer looks for it

    from inspector.records import Comparison

LISTS = ("--input", "--methods", "--metrics")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code: 0 done, 1 an error in one sentence, 2 a wrong call, 130 Ctrl-C."""
    missing = " and ".join(name for name in ("typer", "rich") if not _installed(name))
    if missing:
        sys.exit(f'inspector: the terminal needs {missing}; install it: pip install "inspector[demo]"')
    try:
        _app()(args=spread(sys.argv[1:] if arguments is None else arguments), prog_name="inspector")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # a user at the terminal is told what to do, not where in our code it happened
        from inspector.printing import sentence

        sys.exit(f"inspector: {sentence(error)}")


def spread(arguments: Sequence[str]) -> list[str]:
    """``--input a b`` as ``--input a --input b``: after the model, words that follow a list's option belong to it."""
    written: list[str] = []
    option, values, words = "", 0, 0
    for word in arguments:
        if word.startswith("-"):
            option, values = word, 0
        elif option:
            values += 1
        else:
            words += 1
        if option in LISTS and values > 1 and words > 1:
            written.append(option)
        written.append(word)
    return written


def _installed(name: str) -> bool:
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None


def _app() -> typer.Typer:
    globals()["typer"] = import_module("typer")
    app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(help="See what a PyTorch network does, and whether its explanation can be believed.")(_version)
    for command in (demo, summary, compare, watch, report, methods):
        app.command()(command)
    return app


def _version(version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version)] = False) -> None:
    """Before any command."""


def _say_version(asked: bool) -> None:
    if asked:
        from inspector import __version__

        print(__version__)
        raise typer.Exit


def demo(
    name: Annotated[str, typer.Argument(help="cnn, lstm, attention, or all of them")] = "all",
    train: Annotated[bool, typer.Option("--train", help="train them anew first, a minute each")] = False,
    out: Annotated[Path, typer.Option(help="folder for the pictures and the page")] = Path("inspector-demo"),
    json: Annotated[bool, typer.Option("--json", help="print data instead of tables")] = False,
) -> None:
    """The whole walk on trained models and real data.

    Loads three trained models, judges them on held-out data, looks inside, explains them by several methods, judges the
    explanations, and writes pictures and one page.

    \b
    inspector demo
    inspector demo lstm --out lstm-demo
    inspector demo cnn --train
    """
    from inspector import printing
    from inspector.demo import TITLES
    from inspector.demo import demo as walk

    with printing.bar("loading") as tell:
        made = walk(TITLES if name == "all" else [name], train=train, out=out, tell=tell)
    if json:
        scores = {c.name: {"assessment": _rates(c.assessment), "comparison": _scores(c.comparison)} for c in made.chapters}
        return printing.as_json({"folder": made.folder, "page": made.page, "models": scores})
    return _print_demo(made, out)


def _print_demo(made: Any, out: Path) -> None:
    from inspector import describe, printing
    from inspector.demo import TITLES
    from inspector.report import tables

    for found in made.chapters:
        printing.heading(TITLES[found.name])
        printing.tables([next(tables.assessment(found.assessment)), next(tables.scores(found.comparison.scores))])
        printing.say(describe(found.assessment), "", *_gist(found.comparison), "")
    if made.folder != out:
        printing.say(f"{out} was there already, so this went into {made.folder}.")
    pictures = len(list(made.folder.glob("*.png")))
    printing.say(f"Look at {made.page}: one page that needs no network. {pictures} pictures lie beside it.")


def _gist(found: Comparison) -> list[str]:
    """The first sentences about a comparison, and how many warnings the page has of it."""
    from inspector import describe

    told = describe(found).split("\n")
    agreement = 1 + len(found.scores.metrics)
    warned = [f"{len(found.warnings)} warnings on the page say what not to believe."] if found.warnings else []
    return [*told[:2], *told[agreement : agreement + 1], *warned]


def summary(
    model: Annotated[str, typer.Argument(help="cnn, lstm, attention, torchvision:resnet18, package.module:factory")],
    input: Annotated[list[str] | None, typer.Option(help="files, or samples of a task such as digits:0-7")] = None,
    shape: Annotated[str, typer.Option(help="numbers of this shape as input, such as 1,3,224,224")] = "",
    weights: Annotated[str | None, typer.Option(help="safetensors file or state dict")] = None,
    runs: Annotated[int, typer.Option(help="runs for the median time")] = 3,
    json: Annotated[bool, typer.Option("--json", help="print data instead of a table")] = False,
) -> None:
    """What a model is made of, and what it costs.

    Modules in run order: shapes, parameters, multiply-adds, memory and time; without inputs only what needs no run.

    \b
    inspector summary cnn
    inspector summary torchvision:resnet18 --shape 1,3,224,224
    inspector summary my.package:make_model --input batch.npy
    """
    from inspector import printing, terminal
    from inspector.records import Samples
    from inspector.report import tables
    from inspector.summary import summary as of

    network = terminal.model_from(model, weights)
    inputs = terminal.summary_inputs(model, input or [], shape)
    if inputs is not None:
        terminal.predicted(network, Samples(inputs))
    found = of(network, inputs, runs=runs)
    if json:
        return printing.as_json(found.to_dict())
    table, gone = printing.fitted(next(tables.summary(found)), drop=("dtype", "output bytes", "remarks", "time", "output"))
    printing.tables([table])
    left_out = [f"Left out for want of width: {', '.join(gone)}; --json has all."] if gone else []
    return printing.say(*found.totals(), *left_out)


def compare(
    model: Annotated[str, typer.Argument(help="cnn, lstm, attention, torchvision:resnet18, package.module:factory")],
    input: Annotated[list[str] | None, typer.Option(help="files, or samples of a task such as digits:0-7")] = None,
    methods: Annotated[list[str] | None, typer.Option(help="names; inspector methods lists them")] = None,
    metrics: Annotated[list[str] | None, typer.Option(help="names of metrics")] = None,
    target: Annotated[int | None, typer.Option(help="class to explain; the predicted one unless told")] = None,
    layer: Annotated[str | None, typer.Option(help="for methods that need one")] = None,
    weights: Annotated[str | None, typer.Option(help="safetensors file or state dict")] = None,
    seed: Annotated[int, typer.Option(help="of the random control and of sampling methods")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder for the record, a picture and a page")] = None,
    json: Annotated[bool, typer.Option("--json", help="print data instead of tables")] = False,
) -> None:
    """Judge several explanations side by side.

    The same samples are explained by each method, and each is judged beside controls that explain nothing.

    \b
    inspector compare cnn --input digits:0-15 --methods saliency integrated_gradients grad_cam
    inspector compare torchvision:resnet18 --weights resnet18.safetensors --input cat.jpg dog.jpg --out pets
    """
    from inspector import printing, terminal
    from inspector.metrics import compare as judge

    network = terminal.model_from(model, weights)
    samples = terminal.samples_from(input or [], model)
    lists = {"methods": terminal.names(methods), "metrics": terminal.names(metrics)}
    chosen: dict[str, Any] = {name: words for name, words in lists.items() if words}
    aim = terminal.predicted(network, samples) if target is None else target
    with printing.bar("explaining") as tell:
        found = judge(network, samples, target=aim, layer=layer, seed=seed, progress=printing.steps(tell), **chosen)
    folder = _write(found, out) if out else None
    if json:
        return printing.as_json(_scores(found) | {"folder": folder})
    return _print_comparison(found, folder)


def _write(found: Comparison, out: Path) -> Path:
    from inspector.demo import new_folder
    from inspector.report import report as page
    from inspector.viz import show

    folder = new_folder(out)
    found.save(folder / "comparison.safetensors")
    show(found).savefig(folder / "comparison.png")
    page(folder / "report.html", found, title="Explanations, compared")
    return folder


def _print_comparison(found: Comparison, folder: Path | None) -> None:
    from inspector import describe, printing
    from inspector.report import tables

    printing.tables(tables.scores(found.scores, found.controls))
    printing.say(describe(found))
    if folder:
        printing.say("", f"Written to {folder}: the page report.html, comparison.png and comparison.safetensors.")


def watch(
    run: Annotated[str, typer.Argument(help="folder that a Monitor writes to, also while it does")],
    every: Annotated[float, typer.Option(help="seconds between looks")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="look once and leave")] = False,
    json: Annotated[bool, typer.Option("--json", help="print data, once")] = False,
) -> None:
    """Follow a training, also while it runs.

    Shows its curves, its layers and what is wrong, from the files that a Monitor writes.

    \b
    inspector watch runs/first
    inspector watch runs/first --once --json
    """
    from inspector import printing, watching
    from inspector.records import History

    if not Path(run).exists():
        raise FileNotFoundError(f"{run} does not exist; give the folder that a Monitor(to=...) writes to")
    if json:
        return printing.as_json(watching.data(History.load(run)))
    return watching.watch(run, every=every, once=once or not sys.stdout.isatty())


def report(
    records: Annotated[list[str], typer.Argument(help="files that a record's .save() wrote, and folders of runs")],
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="heading of the page")] = "",
    private: Annotated[bool, typer.Option("--private", help="leave out every input and activation")] = False,
    json: Annotated[bool, typer.Option("--json", help="print data")] = False,
) -> None:
    """Make one page out of saved records.

    It needs no network and holds everything that it shows.

    \b
    inspector report comparison.safetensors runs/first --out page.html
    """
    from inspector import printing, terminal
    from inspector.report import report as page

    made = page(out, *map(terminal.record_from, records), title=title, private=private)
    if json:
        return printing.as_json({"page": made})
    return printing.say(f"Look at {made}.")


def methods(
    json: Annotated[bool, typer.Option("--json", help="print data instead of tables")] = False,
) -> None:
    """List the methods and the metrics."""
    from inspector import METHODS, METRICS, printing

    if json:
        explained = {name: {key: getattr(row, key) for key in _METHOD} for name, row in METHODS.items()}
        return printing.as_json({"methods": explained, "metrics": {name: row.about() for name, row in METRICS.items()}})
    return printing.say("Methods", METHODS, "", "Metrics", METRICS)


_METHOD = ("explains", "needs", "complete", "signed", "passes", "captum", "paper", "limits")


def _rates(assessment: Any) -> dict[str, Any]:
    return {name: getattr(assessment, name) for name in ("n", "accuracy", "precision", "recall", "f1")}


def _scores(comparison: Comparison) -> dict[str, Any]:
    """Mean and 95 % interval per method and metric."""
    scores = comparison.scores
    intervals = {
        label: {m: dict(zip(("mean", "low", "high"), scores.interval(label, m), strict=True)) for m in scores[label]}
        for label in scores
    }
    cost = {label: cost._asdict() for label, cost in comparison.cost.items()}
    return {"scores": intervals, "controls": comparison.controls, "cost": cost, "warnings": comparison.warnings}
