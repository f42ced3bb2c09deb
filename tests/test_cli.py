"""The terminal: every command, its exit code, data for machines, and errors in one sentence."""

import json
import subprocess
import sys

import made_records as made
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from inspector import Comparison, History, cli, loading, models, records, summary, terminal


@pytest.fixture
def inspect(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(list(map(str, arguments)))
        code = left.value.code
        printed = capsys.readouterr()
        if isinstance(code, str):  # what sys.exit prints
            return 1, printed.out, code
        return code or 0, printed.out, printed.err

    return run


COMMANDS = ("demo", "summary", "compare", "watch", "report", "methods")


def test_help_names_every_command_and_each_help_shows_an_example(inspect):
    assert all(command in inspect("--help")[1] for command in COMMANDS)
    for command in COMMANDS[:-1]:
        code, out, _ = inspect(command, "--help")
        assert code == 0
        assert f"\n  inspector {command} " in out


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["summary"], ["summary", "cnn", "--nonsense"]])
def test_a_wrong_call_exits_with_2_and_says_how_to_call(inspect, arguments):
    code, out, err = inspect(*arguments)
    assert code == 2
    assert "Usage: inspector" in out + err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["summary", "nope"], "'nope' is no model; give one of cnn, lstm"),
        (["summary", "torchvision:resnet19"], "no model 'resnet19'; it has"),
        (["summary", "no.such:thing"], "'no.such' cannot be imported"),
        (["summary", "math:nope"], "'math' has no 'nope'"),
        (["summary", "math:pi"], "float"),
        (["summary", "cnn", "--input", "nope.npy"], "nope.npy does not exist"),
        (["summary", "cnn", "--input", "digits:0-9999"], "digits has test samples 0 to 448"),
        (["summary", "cnn", "--weights", "nope.pt"], "nope.pt does not exist"),
        (["compare", "cnn", "--methods", "nonsense"], "'nonsense' is no method; there are saliency"),
        (["compare", "torchvision:resnet18"], "has no samples of its own"),
        (["report", "nope.safetensors"], "nope.safetensors does not exist"),
        (["watch", "nope"], "nope"),
        (["demo", "nope"], "demo has no nope; it has cnn, lstm, attention"),
        (["summary", "cnnn"], "Did you mean 'cnn'?"),
        (["summary", ":make"], "':make' is no model"),
        (["summary", "builtins:int"], "builtins:int made a int"),
        (["summary", "math:sqrt"], "math:sqrt made no model: TypeError"),
        (["summary", "cnn", "--shape", "a,b"], "--shape a,b is no shape"),
        (["summary", "cnn", "--shape", "1,1,28"], "CNN cannot run on the inputs"),
        (["summary", "cnn", "--input", "."], ". is a folder; give image"),
        (["watch", "nope"], "nope does not exist; give the folder"),
    ],
)
def test_an_error_is_one_sentence_without_a_traceback_and_exits_with_1(inspect, arguments, said):
    code, out, err = inspect(*arguments)
    assert (code, out.strip()) == (1, "")
    assert err.startswith("inspector: ")
    assert said in err
    assert "\n" not in err
    assert "Traceback" not in err


def test_without_typer_one_line_says_what_to_install():
    program = "import sys; sys.modules['typer'] = None; from inspector.cli import main; main(['methods'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == 'inspector: the terminal needs typer; install it: pip install "inspector[demo]"\n'


def test_what_is_in_a_file_is_not_taken_on_trust(inspect, tmp_path):
    for name in ("a.png", "a.npy", "a.safetensors"):
        (tmp_path / name).write_text("nothing of the kind")
        code, _, err = inspect("summary", "cnn", "--input", name)
        assert code == 1
        assert name in err
    np.save(tmp_path / "nan.npy", np.full((2, 3), np.nan))
    assert "6 values that are NaN" in inspect("compare", "cnn", "--input", "nan.npy")[2]
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds a list; it must be a state dict" in inspect("summary", "cnn", "--weights", "list.pt")[2]
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    assert "no state dict of tensors alone" in inspect("summary", "cnn", "--weights", "whole.pt")[2]
    (tmp_path / "broken.py").write_text("def make(:\n")
    assert "'broken' cannot be imported: SyntaxError" in inspect("summary", "broken:make")[2]


def test_the_version_is_told(inspect):
    from inspector import __version__

    assert inspect("--version")[:2] == (0, f"{__version__}\n")


def test_a_model_of_torchvision_takes_weights_from_a_file(inspect, tmp_path):
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "w.pt")
    call = ("summary", "torchvision:squeezenet1_1", "--weights", "w.pt", "--shape", "1,3,64,64", "--runs", "1", "--json")
    assert json.loads(inspect(*call)[1])["parameters"] == 1_235_496


def test_a_classifier_of_torchvision_runs_on_one_image_of_the_size_it_is_trained_on():
    assert terminal.summary_inputs("torchvision:squeezenet1_1", [], "").shape == (1, 3, 224, 224)
    assert terminal.summary_inputs("torchvision:inception_v3", [], "").shape == (1, 3, 299, 299)
    assert terminal.summary_inputs("torchvision:fcn_resnet50", [], "") is None


def test_summary_is_a_table_or_data(inspect):
    code, out, _ = inspect("summary", "cnn", "--input", "digits:0", "--runs", "1")
    assert code == 0
    assert "blocks.0.conv" in out
    assert "CNN: 225,034 parameters" in out
    found = json.loads(inspect("summary", "cnn", "--shape", "2,1,28,28", "--runs", "1", "--json")[1])
    assert found["multiply_adds"] == summary(models.load("cnn"), torch.zeros(2, 1, 28, 28), runs=1).multiply_adds


def test_a_model_of_ones_own_is_found_beside_the_user_and_takes_weights_without_pickle(inspect, tmp_path):
    (tmp_path / "mine.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(3, 2)\nready = make()\n")
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "good.safetensors")
    torch.save({"state_dict": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}}, tmp_path / "good.pt")
    torch.save(nn.Linear(3, 2), tmp_path / "whole.pt")
    for name in ("mine:make", "mine:ready"):
        for weights in ("good.safetensors", "good.pt"):
            assert inspect("summary", name, "--weights", weights)[0] == 0
    assert loading.model_from("mine:make", "good.pt").weight.eq(1).all()
    assert inspect("summary", "mine:make", "--weights", "whole.pt")[0] == 1
    save_file({"weight": torch.ones(5, 3), "bias": torch.zeros(2)}, tmp_path / "wrong.safetensors")
    code, _, err = inspect("summary", "mine:make", "--weights", "wrong.safetensors")
    assert code == 1
    assert "does not fit Linear: size mismatch for weight" in err


def test_inputs_come_from_images_arrays_tensors_and_tasks(inspect, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((20, 30, 3), 255, np.uint8)).save(tmp_path / "white.png")
    np.save(tmp_path / "batch.npy", np.zeros((4, 3)))
    save_file({"a": torch.ones(2), "b": torch.zeros(2)}, tmp_path / "two.safetensors")
    assert terminal.samples_from(["white.png"], "cnn").inputs.shape == (1, 1, 28, 28)
    assert terminal.samples_from(["white.png", "white.png"], "my:model").inputs.shape == (2, 3, 20, 30)
    assert terminal.samples_from(["white.png"], "torchvision:resnet18").inputs.shape == (1, 3, 224, 224)
    assert terminal.samples_from(["batch.npy"], "my:model").inputs.dtype == torch.float32
    assert set(terminal.samples_from(["two.safetensors"], "my:model").inputs) == {"a", "b"}
    assert len(terminal.samples_from(["planted_words:3-5"], "words")) == 3
    assert len(terminal.samples_from([], "lstm")) == terminal.FEW
    with pytest.raises(ValueError, match="make them equal"):
        terminal.samples_from(["batch.npy", "white.png"], "my:model")
    np.save(tmp_path / "evil.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        terminal.samples_from(["evil.npy"], "my:model")


def test_compare_prints_scores_writes_a_folder_and_replaces_nothing(inspect, tmp_path):
    call = ["compare", "cnn", "--input", "digits:0-2", "--methods", "saliency", "input_x_gradient", "--out", "pets"]
    code, out, _ = inspect(*call, "--metrics", "completeness,sparseness")
    assert code == 0
    assert "input_x_gradient" in out
    assert {p.name for p in (tmp_path / "pets").iterdir()} == {"report.html", "comparison.png", "comparison.safetensors"}
    found = json.loads(inspect(*call, "--metrics", "sparseness", "--json")[1])
    assert found["folder"] == "pets-2"
    assert set(found["scores"]["saliency"]["sparseness"]) == {"mean", "low", "high"}
    loaded = Comparison.load(tmp_path / "pets/comparison.safetensors")
    assert loaded.settings["samples"] == 3


def test_report_makes_a_page_of_saved_records_whatever_they_are(inspect, tmp_path):
    made.row_attribution().save(tmp_path / "a.safetensors")
    summary(nn.Linear(2, 2)).save(tmp_path / "b.safetensors")
    code, out, _ = inspect("report", "a.safetensors", "b.safetensors", "--out", "page.html", "--title", "Mine", "--private")
    assert (code, out) == (0, "Look at page.html.\n")
    page = (tmp_path / "page.html").read_text()
    assert "<h1>Mine</h1>" in page
    assert "What Linear is made of" in page
    assert json.loads(inspect("report", "b.safetensors", "--json")[1]) == {"page": "report.html"}
    save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    assert "is no record of Inspector's" in inspect("report", "foreign.safetensors")[2]


def test_every_record_can_be_loaded_without_saying_which_it_is(tmp_path):
    for record in (made.row_attribution(), summary(nn.Linear(2, 2)), History("epoch"), records.Samples(torch.ones(2))):
        assert type(terminal.record_from(str(record.save(tmp_path / "r.safetensors")))) is type(record)


@pytest.fixture
def run(tmp_path):
    """The folder of a short training."""
    from inspector import Monitor

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Monitor(model, optimizer, every=1, to=tmp_path / "run") as monitor:
        for _ in range(5):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)
    return tmp_path / "run"


def test_watch_shows_a_run_once_where_nobody_can_see_it_move(inspect, run):
    code, out, _ = inspect("watch", run)
    assert code == 0
    assert "loss" in out
    assert "Layers that matter" in out
    found = json.loads(inspect("watch", run, "--json")[1])
    assert found["scalars"]["loss"]["step"] >= 3


def test_a_run_can_be_reported(inspect, run, tmp_path):
    assert inspect("report", run, "--out", "run.html")[0] == 0
    assert "Training by step" in (tmp_path / "run.html").read_text()


def test_methods_lists_both_tables(inspect):
    assert {"integrated_gradients", "deletion"} <= set(inspect("methods")[1].split())
    found = json.loads(inspect("methods", "--json")[1])
    assert found["metrics"]["deletion"]["better"] == "low"
    assert found["methods"]["deep_lift"]["complete"] is True


def test_words_after_a_lists_option_belong_to_it_once_the_model_is_named():
    written = cli.spread(["compare", "cnn", "--input", "a", "b", "--out", "c"])
    assert written == ["compare", "cnn", "--input", "a", "--input", "b", "--out", "c"]
    assert cli.spread(["compare", "--input", "a", "cnn"]) == ["compare", "--input", "a", "cnn"]


def test_what_would_move_the_cursor_is_not_printed(inspect, tmp_path, capsys):
    model = nn.Sequential()
    model.add_module("\x1b[2J[bold]red", nn.Linear(2, 2))
    from inspector import printing
    from inspector.report import tables

    printing.tables(tables.summary(summary(model)))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]red" in out
