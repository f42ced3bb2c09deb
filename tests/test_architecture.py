"""The house: arrows go down, viewers and makers never meet, one file registers hooks, and importing is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import inspector

ROOT = Path(inspector.__file__).parent
FLOORS = [
    # A room may import from the rows above it here, never from its own row or below.
    ("floor 1", {"tensors", "provenance"}),
    ("floor 1", {"sites", "archive"}),
    ("floor 2", {"records"}),
    ("floor 3", {"hooks", "models", "words"}),
    ("floor 3", {"viz", "describe"}),
    ("floor 4", {"report", "attribution", "monitor", "dry_run", "counting"}),
    ("floor 4", {"summary"}),
    ("floor 5", {"metrics"}),
    ("floor 6", {"printing", "loading"}),
    ("floor 6", {"watching", "terminal"}),
    ("floor 6", {"demo"}),
    ("floor 6", {"telling"}),
    ("floor 6", {"cli"}),
    ("floor 6", {"__main__"}),
]
VIEWERS = {"viz", "words", "describe", "report"}
MAKERS = {"hooks", "models", "attribution", "monitor", "dry_run", "counting", "summary", "metrics"}
FLOOR = {room: number for number, (_, rooms) in enumerate(FLOORS) for room in rooms}
FILES = sorted(p for p in ROOT.rglob("*.py"))
HEAVY = ("captum", "matplotlib", "torchvision", "sklearn", "jinja2", "pandas", "scipy", "typer", "rich", "IPython")


def room(path):
    """The top-level room of a file: "hooks" for hooks/tap.py."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """Every module that a file imports, wherever the import stands, without those for the type checker only."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner(path):
    """The rooms of the house that a file imports from."""
    parts = [name.split(".") for name in imports(path)]
    found = {p[1] for p in parts if p[0] == "inspector" and len(p) > 1 and p[1] != "__version__"}
    return {inspector._HOME_OF.get(name, f"inspector.{name}").split(".")[1] for name in found}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_arrow_goes_down(path):
    if path == ROOT / "__init__.py":
        return
    assert room(path) in FLOOR, f"{room(path)} stands on no floor: add it to FLOORS"
    for other in inner(path) - {room(path)}:
        assert FLOOR[other] < FLOOR[room(path)], (
            f"{room(path)} (floor {FLOOR[room(path)]}) imports {other} (floor {FLOOR[other]})"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_viewers_and_makers_do_not_meet(path):
    if room(path) in VIEWERS:
        assert not inner(path) & MAKERS
    if room(path) in MAKERS:
        assert not inner(path) & VIEWERS
        assert not any(name.split(".")[0] == "matplotlib" for name in imports(path) if room(path) != "models")


def test_only_the_tap_registers_module_hooks():
    verbs = ("register_forward_hook", "register_forward_pre_hook", "register_module_forward", "backward_hook(")
    for path in FILES:
        if path.name != "tap.py" and path.name != "gradients.py":
            found = [verb for verb in verbs if verb in code(path)]
            assert not found, f"{path.relative_to(ROOT)} uses {found}; mount in hooks/tap.py is the one mechanism"


def code(path):
    """The source without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0].value.value = ""
    return ast.unparse(tree)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_unpickles_and_nothing_executes_text(path):
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(ast.parse(path.read_text()))}
    assert not names & {"pickle", "cPickle", "dill", "joblib", "eval_", "exec", "Unpickler"}
    assert not {"pickle", "dill", "joblib"} & {name.split(".")[0] for name in imports(path)}


def fresh(source):
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_inspector_loads_nothing_heavier_than_torch():
    loaded = fresh("import sys, inspector; from inspector import Samples, capture; print(*sys.modules)")
    plain = fresh("import sys, torch, torch.utils.checkpoint; print(*sys.modules)")
    extra = {name.split(".")[0] for name in set(loaded) - set(plain)}
    assert extra <= {"inspector", "_distutils_hack"} | set(sys.stdlib_module_names)


def test_looking_at_saved_records_needs_neither_captum_nor_a_model():
    loaded = fresh("import sys, inspector.viz, inspector.describe, inspector.report; print(*sys.modules)")
    assert not [
        name for name in ("captum", "torchvision", "sklearn", "inspector.hooks", "inspector.models") if name in loaded
    ]


def test_capturing_loads_neither_captum_nor_matplotlib():
    loaded = fresh("import sys; from inspector import capture, edit, Monitor, models; models.CNN; print(*sys.modules)")
    assert not [name for name in HEAVY if name in loaded and name != "jinja2"]


def test_the_verbs_stay_verbs_although_modules_have_their_names():
    import inspector.describe  # binds the submodule, which must not hide the function
    import inspector.report
    import inspector.summary  # as above

    assert callable(inspector.describe)
    assert callable(inspector.report)
    assert callable(inspector.summary)
    assert callable(inspector.models.fit)
    assert callable(inspector.models.assess)


def test_the_root_opens_on_the_rooms_that_the_project_is_made_of():
    root = ROOT.parent
    if not (root / "pyproject.toml").exists():
        pytest.skip("not a checkout: an installed package has no root")
    for name in ("hooks", "models"):
        assert (root / name).resolve() == ROOT / name
    for name in ("inspector", "notebooks", "tests", "setup.cfg", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        assert (root / name).exists()
    assert not (root / "uv.lock").exists()


def test_files_and_functions_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    long = {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 300}
    assert not long, f"is there a second idea in it? {long}"
    sizes = sorted(body_lines(node) for path in FILES for node in functions(path))
    assert sizes[len(sizes) // 2] <= 7
    giants = [f"{p.name}:{n.name} {body_lines(n)}" for p in FILES for n in functions(p) if body_lines(n) > 40]
    assert not giants


def functions(path):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def body_lines(node):
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0
