"""The demo as a new user meets it."""

import json
import re

import pytest

from inspector import cli
from inspector.demo import METHODS, TITLES, demo, new_folder
from inspector.records import Comparison
from inspector.report.markup import text


def test_an_existing_folder_is_kept_and_a_numbered_sibling_is_taken(tmp_path):
    wanted = tmp_path / "inspector-demo"
    assert new_folder(wanted) == wanted
    assert new_folder(wanted) == wanted  # it is empty, so nothing is lost
    (wanted / "mine.txt").write_text("mine")
    assert new_folder(wanted).name == "inspector-demo-2"
    (tmp_path / "inspector-demo-2" / "mine.txt").write_text("mine")
    assert new_folder(wanted).name == "inspector-demo-3"
    (tmp_path / "file").write_text("a file of that name")
    assert new_folder(tmp_path / "file").name == "file-2"


def test_another_name_is_refused_before_anything_is_written(tmp_path):
    for names in (["cnn", "gpt"], []):
        with pytest.raises(LookupError, match="it has cnn, lstm, attention and all"):
            demo(names, out=tmp_path / "demo", tell=lambda share, label: None)
    assert not list(tmp_path.iterdir())


def test_every_model_of_the_demo_has_methods_and_a_title():
    assert set(TITLES) == set(METHODS)


@pytest.mark.slow
def test_the_demo_writes_pictures_and_a_page_and_says_where_to_look(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.main(["demo", "cnn"])
    assert not left.value.code
    out = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "inspector-demo").iterdir()}
    assert names == {*(f"cnn-{name}.png" for name in ("assessment", "inside", "maps", "explanations")), "report.html"}
    assert "inspector-demo/report.html" in out
    assert "integrated_gradients" in out
    assert float(re.search(r"digits +449 +([\d.]+)%", out)[1]) >= 98
    assert text(TITLES["cnn"]) in (tmp_path / "inspector-demo" / "report.html").read_text()


@pytest.mark.slow
def test_a_second_demo_goes_beside_the_first_and_is_data_for_machines(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inspector-demo").mkdir()
    (tmp_path / "inspector-demo" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        cli.main(["demo", "lstm", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == "inspector-demo-2"
    assert found["models"]["lstm"]["assessment"]["accuracy"] >= 0.96


@pytest.mark.slow
def test_training_anew_is_watched_and_shown(tmp_path):
    told = []
    made = demo(["cnn"], train=True, out=tmp_path / "demo", tell=lambda share, label: told.append((share, label)))
    chapter = made.chapters[0]
    assert chapter.assessment.accuracy >= 0.97
    assert [history.unit for history in chapter.training] == ["epoch", "step"]
    assert any("epoch 1 of" in label and "validation accuracy" in label for _, label in told)
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert isinstance(chapter.comparison, Comparison)
