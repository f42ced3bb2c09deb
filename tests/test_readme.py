"""The README: its snippets run as they stand, and what it points to is there."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from inspector import models

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def surroundings(monkeypatch, tmp_path):
    """What a reader has before: a model, images with labels, a loader and an optimizer."""
    monkeypatch.chdir(tmp_path)
    samples = models.tasks.digits().train[:32]
    model = models.load("cnn").train()
    batches = [(samples.inputs, samples.target)] * 12
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    known = {"model": model, "images": samples.inputs, "labels": samples.target, "loader": batches}
    return known | {"optimizer": optimizer, "cross_entropy": cross_entropy}


def test_there_are_three_snippets_of_a_few_lines():
    assert len(SNIPPETS) == 3
    assert all(len(snippet.strip().splitlines()) <= 14 for snippet in SNIPPETS)


@pytest.mark.parametrize("at", range(len(SNIPPETS)))
def test_a_snippet_runs_as_it_stands(at, surroundings, tmp_path):
    exec(compile(SNIPPETS[at], f"README snippet {at}", "exec"), surroundings)
    if "store" in surroundings:
        assert surroundings["store"]["blocks.1"].grad.shape == (32, 64, 5, 5)
    if "monitor" in surroundings:
        assert len(surroundings["monitor"].history.scalars["loss"][1]) == 12
        assert (tmp_path / "runs" / "first").is_dir()
    if "comparison" in surroundings:
        assert (tmp_path / "compare.png").stat().st_size > 10_000
        assert (tmp_path / "compare.html").stat().st_size > 10_000


def test_whatever_the_readme_points_to_is_there():
    places = re.findall(r"\]\(([^)#]+)\)", README)
    assert places
    missing = [place for place in places if not place.startswith("http") and not (ROOT / place).exists()]
    assert not missing
