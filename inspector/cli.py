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
    from inspector import printing, telling
    from inspector.demo import TITLES
    from inspector.demo import demo as walk

    with printing.bar("loading") as tell:
        made = walk(TITLES if name == "all" else [name], train=train, out=out, tell=tell)
    if json:
        return printing.as_json(telling.walked(made))
    return telling.demo(made, out)


def summary(
    model: Annotated[str, typer.Argument(help="cnn, lstm, attention, torchvision:resnet18, package.module:factory")],
    input: Annotated[list[str] | None, typer.Option(help="files, or samples of a task such as digits:0-7")] = None,
    shape: Annotated[str, typer.Option(help="numbers of this shape as input, such as 1,3,224,224")] = "",
    weights: Annotated[str | None, typer.Option(help="safetensors file or state dict")] = None,
    runs: Annotated[int, typer.Option(help="runs for the median time")] = 3,
    json: Annotated[bool, typer.Option("--json", help="print data instead of a table")] = False,
) -> None:
    """What a model is made of, and what it costs.

    Modules in run order: shapes, parameters, multiply-adds, memory and time. A model that comes trained runs on its own
    samples, a classifier of torchvision on one image; without inputs only what needs no run is told.

    \b
    inspector summary cnn
    inspector summary torchvision:resnet18
    inspector summary torchvision:resnet18 --shape 8,3,128,128
    inspector summary my.package:make_model --input batch.npy
    """
    from inspector import loading, printing, terminal
    from inspector.records import Samples
    from inspector.report import tables
    from inspector.summary import summary as of

    network = loading.model_from(model, weights)
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
    from inspector import loading, printing, telling, terminal
    from inspector.metrics import compare as judge

    network = loading.model_from(model, weights)
    samples = terminal.samples_from(input or [], model)
    lists = {"methods": terminal.names(methods), "metrics": terminal.names(metrics)}
    chosen: dict[str, Any] = {name: words for name, words in lists.items() if words}
    aim = terminal.predicted(network, samples) if target is None else target
    with printing.bar("explaining") as tell:
        found = judge(network, samples, target=aim, layer=layer, seed=seed, progress=printing.steps(tell), **chosen)
    folder = _write(found, out) if out else None
    if json:
        return printing.as_json(telling.scores(found) | {"folder": folder})
    return telling.comparison(found, folder)


def _write(found: Comparison, out: Path) -> Path:
    from inspector.demo import new_folder
    from inspector.report import report as page
    from inspector.viz import show

    folder = new_folder(out)
    found.save(folder / "comparison.safetensors")
    show(found).savefig(folder / "comparison.png")
    page(folder / "report.html", found, title="Explanations, compared")
    return folder


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
    from inspector import METHODS, METRICS, printing, telling

    if json:
        explained = {name: {key: getattr(row, key) for key in telling.METHOD} for name, row in METHODS.items()}
        return printing.as_json({"methods": explained, "metrics": {name: row.about() for name, row in METRICS.items()}})
    return printing.say("Methods", METHODS, "", "Metrics", METRICS)
