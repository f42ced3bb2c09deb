"""The wheel: built from the checkout, installed into an empty environment, every module imported there."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMPORT_ALL = """
import pkgutil, importlib, inspector
assert "site-packages" in inspector.__file__, inspector.__file__
names = [m.name for m in pkgutil.walk_packages(inspector.__path__, "inspector.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
from inspector import models
print(len(names), models.load("cnn")(__import__("torch").zeros(1, 1, 28, 28)).shape[1])
"""


WITHOUT_TORCHVISION = """
import torch, importlib, pkgutil, inspector
for module in pkgutil.walk_packages(inspector.__path__, "inspector."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from inspector import Monitor, capture, compare, models, report, show
model, task = models.load("cnn"), models.tasks.digits()
with capture(model) as store, Monitor(model) as monitor:
    model(task.test.inputs[:2])
comparison = compare(model, task.test[:2], methods=("saliency", "grad_cam"), metrics=("sparseness",))
report("page.html", store, comparison, models.assess(model, task))
show(comparison)
try:
    models.tasks.mnist(".")
except ImportError as error:
    print(error)
"""

ONE_PASS = """
import inspector, torch
from inspector.monitor.one_pass import ONE_PASS
model = torch.nn.Linear(2, 1, bias=False)
torch.nn.init.constant_(model.weight, 0.25)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with inspector.Monitor(model, every=1) as monitor:
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
found = monitor.history.stats.where(kind="output", statistic="mean")["value"].item()
print(ONE_PASS, found, "site" if "installed" in inspector.__file__ else inspector.__file__)
"""


def run(*command, **options):
    options.setdefault("env", {name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_its_types_its_weights_and_its_page(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"inspector"}
    assert "inspector/py.typed" in names
    for ending in (".safetensors", ".css", ".js"):
        assert any(name.endswith(ending) for name in names), ending
    sizes = [info.file_size for info in zipfile.ZipFile(wheel).infolist() if info.filename.endswith(".safetensors")]
    assert sum(sizes) < 1.5e6


@pytest.mark.slow
@pytest.mark.skipif(sysconfig.get_platform() != "linux-x86_64" or not shutil.which("cc"), reason="needs a C compiler")
def test_the_wheel_holds_the_compiled_reductions_where_a_compiler_is(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("inspector/monitor/native/_one_pass.") for name in names)


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_built_all_the_same_and_the_monitor_reduces_with_torch(tmp_path):
    left_out = shutil.ignore_patterns("*.so", "*.pyd", "build", "dist", ".*", "*.egg-info", "docs", "notebooks", "tests")
    shutil.copytree(ROOT, tmp_path / "source", ignore=left_out)  # so that nothing built before lies about
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"CC": "false"}
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "out", tmp_path / "source", env=env)
    wheel = next((tmp_path / "out").glob("*.whl"))
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".so", ".pyd"))]
    run(sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "installed")
    env = dict(os.environ, PYTHONPATH=str(tmp_path / "installed"))
    assert run(sys.executable, "-c", ONE_PASS, cwd=tmp_path, env=env).split() == ["None", "0.5", "site"]


@pytest.mark.slow
def test_every_module_imports_in_an_empty_environment_outside_the_checkout(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[demo]")
    count, classes = run(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert int(count) > 50
    assert int(classes) == 10
    assert "demo" in run(tmp_path / "env" / "bin" / "inspector", "--help", cwd=tmp_path)


@pytest.mark.slow
def test_a_torchvision_that_does_not_fit_torch_breaks_only_what_needs_it_and_names_the_cure(tmp_path):
    broken = tmp_path / "path" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": f"{broken.parent}{os.pathsep}{ROOT}"}}
    cure = "operator torchvision::nms does not exist); install a matching pair: pip install"
    assert cure in run(sys.executable, "-c", WITHOUT_TORCHVISION, **options)
    command = [sys.executable, "-m", "inspector", "summary", "torchvision:resnet18"]
    told = subprocess.run(command, capture_output=True, text=True, **options)
    assert told.returncode == 1
    assert cure in told.stderr
    assert "Traceback" not in told.stderr
