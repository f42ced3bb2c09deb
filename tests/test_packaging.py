"""The wheel: built from the checkout, installed into an empty environment, every module imported there."""

import subprocess
import sys
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


def run(*command, **options):
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
def test_every_module_imports_in_an_empty_environment_outside_the_checkout(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[demo]")
    count, classes = run(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert int(count) > 50
    assert int(classes) == 10
    assert "demo" in run(tmp_path / "env" / "bin" / "inspector", "--help", cwd=tmp_path)
