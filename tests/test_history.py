"""Stats, History and the run folder: what was written is read, also when the last line was torn."""

import numpy as np
import pytest

from inspector.records.framing import MARK, pack, records
from inspector.records.history import Finding, History, Series, Stats
from inspector.records.runfolder import (
    FILE,
    Run,
    columns,
    columns_record,
    finding_record,
    frame_record,
    header,
    histogram_record,
    json_record,
    names_record,
    rows_records,
    series_record,
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


COUNTS = np.array([[1, 2, 3], [0, 70_000, 0]])
BAD = {"rule": "nan", "name": "fc", "step": 2, "value": float("nan"), "threshold": 0.0, "message": "m"}
LINES = [
    header({"class": "CNN"}),
    series_record(SERIES[:2], 0),
    columns_record(np.ones(2, bool), 0),
    frame_record(1, 0, np.array([0.5, float("inf")])),
    names_record(["loss", "lr"], 0),
    rows_records("s", [(1, {"loss": float("nan"), "lr": 0.1})], 0),
    series_record(SERIES[2:], 2),
    columns_record(np.array([True, False, True]), 1),
    frame_record(2, 1, np.array([0.5, 1e-30])),
    rows_records("s", [(2, {"loss": 0.25, "lr": 0.1})], 0),
    finding_record(BAD),
    names_record(["output", "fc", "relu"], 1),
    histogram_record(2, 1, COUNTS),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FILE).write_bytes(b"".join(LINES))
    return tmp_path


def test_a_folder_is_read_with_its_absent_values_absent(folder):
    history = History.load(folder)
    assert history.meta["class"] == "CNN"
    assert np.isnan(history.scalars["loss"][1][0])
    assert history.scalars["loss"][0].tolist() == [1, 2]
    assert history.scalars["lr"][1].tolist() == [0.1, 0.1]
    assert history.stats.where(step=1)["value"].tolist() == [0.5, float("inf")]
    assert history.stats.where(step=2)["statistic"].tolist() == ["rms", "rms"]
    assert history.stats.where(step=2)["value"].tolist() == [0.5, float(np.float32(1e-30))]
    assert np.isnan(history.findings[0].value)
    assert {name: counts[0].tolist() for name, (_, counts) in history.histograms["output"].items()} == {
        "fc": [1, 2, 3],
        "relu": [0, 70_000, 0],
    }
    assert str(History.load(folder / FILE)) == str(history)


def test_one_series_is_read_as_the_whole_block_has_it(folder):
    lazy, whole = History.load(folder).stats, History.load(folder).stats
    assert whole.cells.shape == (2, 3)
    for series in SERIES:
        assert lazy.line(*series)[1].tolist() == whole.line(*series)[1].tolist()
    assert lazy.grid("output", "rms").values.tolist() == whole.grid("output", "rms").values.tolist()
    assert lazy.line("grad", "fc", "rms")[0].tolist() == [2]


def test_a_large_file_is_mapped_and_read_as_a_small_one_also_what_is_written_later(folder, monkeypatch):
    whole = (folder / FILE).read_bytes()
    small = History.load(folder)
    monkeypatch.setattr("inspector.records.runfolder.MAPPED", 1)
    (folder / FILE).write_bytes(whole[: -len(LINES[-1])])
    run = Run(folder)
    assert run.update()
    with (folder / FILE).open("ab") as file:
        file.write(LINES[-1])
    assert run.update()
    large = History(**run.fields())
    assert np.array_equal(large.stats.cells, small.stats.cells, equal_nan=True)
    assert large.histograms["output"]["fc"][1].tolist() == small.histograms["output"]["fc"][1].tolist()
    spoilt = bytearray(whole)
    spoilt[len(LINES[0]) + len(LINES[1]) + len(LINES[2]) + 20] ^= 1  # in the first frame
    (folder / FILE).write_bytes(spoilt)
    assert History.load(folder).stats.steps.tolist() == [2]


def test_every_prefix_of_a_file_is_readable_as_far_as_it_goes(folder):
    whole = (folder / FILE).read_bytes()
    ends = np.cumsum([len(line) for line in LINES])
    for end in range(len(LINES[0]), len(whole)):
        (folder / FILE).write_bytes(whole[:end])
        history = History.load(folder)
        assert history.stats.rows == 2 * int(end >= ends[3]) + 2 * int(end >= ends[8])
        assert len(history.findings) == int(end >= ends[10])


@pytest.mark.parametrize("at", range(1, len(LINES)))
def test_what_is_torn_or_spoilt_costs_only_itself(folder, at):
    whole = History.load(folder)
    for broken in (LINES[at][:-3], LINES[at][:5], bytes(b ^ 1 for b in LINES[at]), MARK, b"\n"):
        rest = [*LINES[:at], broken, *LINES[at + 1 :]]
        (folder / FILE).write_bytes(b"".join(rest))
        history = History.load(folder)
        names = [name for name in history.stats.unique("name") if not name.startswith("column")]
        assert names == whole.stats.unique("name")[: len(names)]
        for series in history.stats.series:
            assert set(history.stats.line(*series)[1].tolist()) <= set(whole.stats.cells.ravel().tolist())
        assert set(history.scalars) <= set(whole.scalars)
        assert history.stats.rows >= 2 - 2 * (at in (1, 2)) or at == 3


def test_a_file_is_followed_while_it_is_written(folder):
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: len(LINES[0])])
    run, told = Run(folder), 0
    for end in range(len(LINES[0]), len(whole) + 1, 11):
        (folder / FILE).write_bytes(whole[:end])
        told += run.update()
    (folder / FILE).write_bytes(whole)
    run.update()
    assert History(**run.fields()).stats["value"].tolist() == History.load(folder).stats["value"].tolist()
    assert told > 3
    assert not run.update()


def test_resuming_supersedes_what_came_later(folder):
    with (folder / FILE).open("ab") as file:
        file.write(LINES[8][:-2])  # torn by the crash after which the run was resumed
        file.write(json_record({"resume": 1}) + names_record(["loss"], 0) + rows_records("s", [(2, {"loss": 0.75})], 0))
    history = History.load(folder)
    assert history.scalars["loss"][1].tolist()[1:] == [0.75]
    assert history.stats.unique("step") == [1]
    assert history.findings == []


@pytest.mark.parametrize("number", [0.1, 0.5, -0.0, 1e300, 1e-45, 16777217.0, float("nan"), float("inf"), -float("inf")])
def test_a_row_alone_is_kept_as_exactly_as_one_among_others(tmp_path, number):
    alone = [rows_records("s", [(step, {"a": number, "b": 1.0})], 0) for step in (3, 7)]
    together = [rows_records("s", [(3, {"a": number, "b": 1.0}), (7, {"a": number, "b": 1.0})], 0)]
    found = []
    for told in (alone, together):
        (tmp_path / FILE).write_bytes(b"".join([header({}), names_record(["a", "b"], 0), *told]))
        found.append(History.load(tmp_path).scalars)
    for name, true in (("a", number), ("b", 1.0)):
        for steps, values in (scalars[name] for scalars in found):
            assert steps.tolist() == [3, 7]
            np.testing.assert_array_equal(values, [true, true])
            assert np.signbit(values).tolist() == [np.signbit(true)] * 2


def test_steps_at_which_something_is_above_are_those_of_the_grids():
    generator = np.random.default_rng(0)
    series = [Series(kind, name, s) for kind in ("output", "param") for name in "abc" for s in ("nan", "inf", "rms")]
    values = (generator.random((50, len(series))) > 0.97).astype(np.float64)
    present = generator.random(values.shape) > 0.2
    stats = Stats.dense(np.arange(50), series, np.where(present, values, np.nan), present)
    grids = [stats.grid(kind, s) for kind in ("output", "param") for s in ("nan", "inf")]
    true = sorted({int(step) for grid in grids for step in grid.steps[(grid.values > 0).any(axis=0)]})
    assert 0 < len(true) < 50
    assert stats.steps_above(0.0, "nan", "inf").tolist() == true
    assert stats.steps_above(0.0, "other").tolist() == []


def test_rows_keep_their_steps_and_their_numbers_exactly(tmp_path):
    steps = [1, 2, 3, 10, 20, 30, 31, 31, 5]
    rows = [(step, {"a": 1 / (i + 3), "b": float(i)}) for i, step in enumerate(steps)]
    told = [header({}), names_record(["a", "b"], 0), rows_records("s", rows, 0), rows_records("w", [], 0)]
    (tmp_path / FILE).write_bytes(b"".join(told))
    scalars = History.load(tmp_path).scalars
    assert scalars["a"][0].tolist() == steps
    assert scalars["a"][1].tolist() == [row["a"] for _, row in rows]
    assert scalars["b"][1].tolist() == [row["b"] for _, row in rows]


def test_findings_come_in_the_order_of_the_rules(tmp_path):
    found = [BAD | {"rule": rule, "step": step} for rule, step in (("dormant", 1), ("own", 2), ("nan", 9), ("nan", 3))]
    (tmp_path / FILE).write_bytes(header({"rules": ["nan", "dormant"]}) + b"".join(map(finding_record, found)))
    assert [(f.rule, f.step) for f in History.load(tmp_path).findings] == [
        ("nan", 3),
        ("nan", 9),
        ("dormant", 1),
        ("own", 2),
    ]


def test_a_mark_inside_a_record_is_no_beginning():
    told = pack("x", MARK + b"abc" + MARK) + pack("y", b"")
    assert [(r.kind, bytes(r.body)) for r in records(told)] == [("x", MARK + b"abc" + MARK), ("y", b"")]


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no history.run; give the folder"):
        History.load(tmp_path)
    for other in (b"", b'{"loss": 1}\n', pack("j", b"\x00"), bytes(5000)):
        (tmp_path / FILE).write_bytes(other)
        with pytest.raises(ValueError, match="it is no run"):
            History.load(tmp_path)


def test_a_history_becomes_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = History(stats=Stats(LONG)).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(Stats.COLUMNS)
    assert len(frame) == 4


def test_gradients_are_in_execution_order_though_they_arrive_from_the_end():
    rows = {"step": [1] * 6, "kind": ["output"] * 3 + ["grad"] * 3, "name": [*"abc", *"cba"]}
    stats = Stats(rows | {"statistic": ["rms"] * 6, "value": [1.0, 2.0, 3.0, 30.0, 20.0, 10.0]})
    assert stats.grid("grad", "rms").names == ["a", "b", "c"]
    assert stats.grid("grad", "rms").values[:, 0].tolist() == [10.0, 20.0, 30.0]
    assert stats.where(kind="grad").grid("grad", "rms").names == ["a", "b", "c"]


def test_a_run_that_does_not_exist_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist; give the folder of a Monitor"):
        History.load(tmp_path / "nowhere")
