"""Stats, History and the run folder: what was written is read, also when the last line was torn."""

import numpy as np
import pytest

from inspector.records.history import Finding, History, Series, Stats
from inspector.records.runfolder import (
    FILE,
    columns,
    finding_line,
    header,
    histogram_line,
    resume_line,
    scalars_line,
    series_line,
    stats_line,
)

LONG = {
    "step": [1, 1, 2, 2],
    "kind": ["output", "grad", "output", "output"],
    "name": ["fc", "fc", "fc", "relu"],
    "statistic": ["rms", "rms", "rms", "rms"],
    "value": [1.0, 2.0, 3.0, float("nan")],
}
SERIES = [Series("output", "fc", "rms"), Series("output", "fc", "max"), Series("grad", "fc", "rms")]


def test_a_long_table_comes_back_as_it_was_given():
    stats = Stats(LONG)
    rows = set(zip(*(map(str, stats[c].tolist()) for c in Stats.COLUMNS), strict=True))
    assert rows == set(zip(*(map(str, LONG[c]) for c in Stats.COLUMNS), strict=True))
    assert stats.rows == 4
    assert [len(stats[c]) for c in stats] == [4] * 5


def test_where_keeps_the_rows_that_are_equal_and_unknown_columns_are_refused():
    stats = Stats(LONG)
    assert stats.where(kind="output", name="fc")["value"].tolist() == [1.0, 3.0]
    assert stats.where(step=2).rows == 2
    assert stats.where(name="nowhere").rows == 0
    assert stats.where(value=2.0)["kind"].tolist() == ["grad"]
    with pytest.raises(KeyError, match="no column"):
        stats.where(layer="fc")
    with pytest.raises(KeyError, match="step, kind, name"):
        stats["layer"]


def test_a_grid_tells_absent_from_not_a_number():
    names, steps, values, present = Stats(LONG).grid("output", "rms")
    assert (names, steps.tolist()) == (["fc", "relu"], [1, 2])
    assert np.isnan(values).tolist() == [[False, False], [True, True]]
    assert present.tolist() == [[True, True], [False, True]]


def test_an_empty_table_has_empty_columns():
    stats = Stats()
    assert [len(stats[c]) for c in stats] == [0] * 5
    assert stats.grid("output", "rms").names == []
    assert stats.line("output", "fc", "rms")[0].tolist() == []


def test_a_history_is_saved_and_loaded_whole(tmp_path):
    found = Finding("nan", "fc", 3, float("nan"), 0.0, "fc went bad")
    counts = np.arange(8).reshape(2, 4)
    kept = History("step", columns([(1, {"loss": 2.0}), (2, {"loss": 1.0})]), Stats(LONG), [found])
    kept.histograms = {"output": {"fc": (np.array([1, 2]), counts)}}
    kept.save(tmp_path / "run.safetensors")
    back = History.load(tmp_path / "run.safetensors")
    assert back.scalars["loss"][1].tolist() == [2.0, 1.0]
    assert back.stats["name"].tolist() == kept.stats["name"].tolist()
    assert back.findings[0].message == "fc went bad"
    assert back.histograms["output"]["fc"][1].tolist() == counts.tolist()


@pytest.fixture
def folder(tmp_path):
    values = np.array([0.5, float("inf"), 1e-30])
    lines = [header({"class": "CNN"}), series_line(SERIES[:2]), stats_line(1, values[:2], np.ones(2, bool))]
    lines += [scalars_line(1, {"loss": float("nan"), "lr": 0.1}), series_line(SERIES[2:])]
    lines += [stats_line(2, values, np.array([True, False, True])), scalars_line(2, {"loss": 0.25})]
    lines += [
        finding_line({"rule": "nan", "name": "fc", "step": 2, "value": float("nan"), "threshold": 0.0, "message": "m"})
    ]
    lines += [histogram_line(2, "output", ["fc"], np.array([[1, 2, 3]]))]
    (tmp_path / FILE).write_text("".join(lines))
    return tmp_path


def test_a_folder_is_read_with_its_absent_values_absent(folder):
    history = History.load(folder)
    assert history.meta["class"] == "CNN"
    assert np.isnan(history.scalars["loss"][1][0])
    assert history.scalars["loss"][0].tolist() == [1, 2]
    assert history.stats.where(step=1)["value"].tolist() == [0.5, float("inf")]
    assert history.stats.where(step=2)["statistic"].tolist() == ["rms", "rms"]
    assert history.stats.where(step=2)["value"].tolist() == [0.5, float(np.float32(1e-30))]
    assert np.isnan(history.findings[0].value)
    assert history.histograms["output"]["fc"][1].tolist() == [[1, 2, 3]]


def test_every_prefix_of_a_file_is_readable(folder):
    whole = (folder / FILE).read_bytes()
    first = whole.index(b"\n")
    for end in range(first + 1, len(whole), 7):
        (folder / FILE).write_bytes(whole[:end])
        assert History.load(folder).stats.rows <= 4


def test_a_line_torn_in_the_middle_costs_only_itself(folder):
    text = (folder / FILE).read_text()
    (folder / FILE).write_text(text.replace('{"step":2,"scalars"', '{"step":2,"sca', 1) + scalars_line(3, {"loss": 9.0}))
    assert History.load(folder).scalars["loss"][0].tolist() == [1, 3]


def test_resuming_supersedes_what_came_later(folder):
    with (folder / FILE).open("a") as file:
        file.write(resume_line(1) + scalars_line(2, {"loss": 0.75}))
    history = History.load(folder)
    assert history.scalars["loss"][1].tolist()[1:] == [0.75]
    assert history.stats.unique("step") == [1]
    assert history.findings == []


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="history"):
        History.load(tmp_path)
    (tmp_path / FILE).write_text('{"loss": 1}\n')
    with pytest.raises(ValueError, match="no run of this library"):
        History.load(tmp_path)


def test_a_history_becomes_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = History(stats=Stats(LONG)).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(Stats.COLUMNS)
    assert len(frame) == 4
