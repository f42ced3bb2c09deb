"""Pictures of what is inside a model: calls, states, gates, attention, and training by layer."""

import warnings
from dataclasses import replace

import made_records as made
import matplotlib.text
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from inspector.records import Call, Coverage, Finding, History, Samples, Stats, Status, Task
from inspector.records.history import LOG2_BINS
from inspector.records.stats import Series
from inspector.sites import Site
from inspector.viz import (
    Figure,
    plot_attention,
    plot_filters,
    plot_gate,
    plot_gradient_flow,
    plot_histogram,
    plot_patches,
    plot_update_ratio,
    rollout,
    show,
)
from inspector.viz.gates import saturated
from inspector.viz.layers import plot_layers


def call(kind, value, **more):
    kinds = (kind, *more)
    made_call = Call(Site("part", 0), "Part", kinds)
    made_call.values = {kind: value, **more}
    return made_call


def lstm(layers=2, batch=3, steps=20, units=6):
    torch.manual_seed(0)
    shape = (layers, batch, steps, units)
    gates = {name: torch.rand(shape) for name in ("input", "forget", "output")}
    gates |= {"cell": torch.rand(shape) * 2 - 1, "state": torch.randn(shape)}
    return call("gates", gates, input=torch.randn(batch, steps, 3))


def attention(batch=2, heads=4, size=7):
    torch.manual_seed(0)
    return torch.randn(batch, heads, size, size).softmax(dim=-1)


PICTURES = {
    "gates": lambda: show(lstm(), layer=1, sample=2),
    "states": lambda: show(lstm(), kind="input"),
    "attention": lambda: show(call("attention", attention()), tokens=list("abcdefg")),
    "twelve heads": lambda: show(call("attention", attention(1, 12, 64))),
    "patches": lambda: show(call("attention", attention(1, 4, 10)), patches=(3, 3)),
    "maps": lambda: show(call("output", torch.rand(2, 40, 9, 9))),
    "rows": lambda: show(call("output", torch.randn(4, 30))),
    "integers": lambda: show(call("output", torch.arange(12).reshape(3, 4))),
    "several attributions": lambda: show(made.image_attribution(), made.image_attribution(heat=(7, 7))),
    "layers": lambda: show({f"layer{i}": made.image_attribution() for i in range(3)}),
    "samples": lambda: show(made.image_attribution().samples),
    "series": lambda: show(made.series_attribution().samples),
    "token samples": lambda: show(made.token_attribution().samples),
    "ids": lambda: show(Samples({"user": torch.arange(5), "item": torch.arange(5)}, torch.arange(5))),
    "task": lambda: show(Task(made.image_attribution().samples, made.image_attribution().samples, "toy")),
    "scores": lambda: show(made.images_compared().scores),
    "curve": lambda: show(made.images_compared().curves["saliency"]["deletion"]),
    "coverage": lambda: show(Coverage({"a": Status("Linear", 3), "b": Status("Linear", 0, "branch not taken")})),
    "findings": lambda: show(made.history().findings),
    "no findings": lambda: show([]),
    "run": lambda: show(training()),
    "stores": lambda: show(made.store(), made.store(scale=1.1)),
    "assessments": lambda: show(made.assessment(), made.assessment(groups=False)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_inner_picture_is_drawn_without_a_warning_and_says_what_it_is(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = PICTURES[name]()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    assert isinstance(figure, Figure)
    assert figure.words.strip()
    assert np.asarray(canvas.buffer_rgba()).std() > 0


def titles(figure):
    return [ax.get_title("left") for ax in figure.axes]


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


# calls


def test_gates_are_on_a_fixed_scale_and_say_how_many_are_saturated():
    gate = torch.full((10, 4), 0.5)
    gate[:, 0], gate[:5, 1] = 0.95, 0.01
    drawn = plot_gate(gate, "forget")
    assert drawn.get_clim() == (0.0, 1.0)
    assert drawn.axes.get_title("left") == "forget gate · 25.0% open (> 0.9), 12.5% shut (< 0.1)"
    opened, shut = saturated(gate)
    assert opened.tolist() == [0.25] * 10
    assert shut.tolist() == [0.25] * 5 + [0.0] * 5


def test_the_input_of_a_recurrent_layer_stands_above_its_gates():
    figure = show(lstm(), layer=1)
    assert titles(figure)[0] == "input"
    assert titles(figure)[1].startswith("input gate")
    assert "layer 1 of 2" in figure.words


def test_units_lie_down_and_time_runs_to_the_right():
    states = torch.zeros(1, 5, 3)
    states[0, 4, 2] = 1.0
    image = show(call("output", states)).axes[0].get_images()[0]
    assert image.get_array().shape == (3, 5)
    assert image.get_array()[2, 4] == 1.0
    assert image.norm(0.0) == 0.5


def test_a_layer_a_sample_or_a_kind_that_is_not_there_is_refused():
    with pytest.raises(IndexError, match="no layer 5"):
        show(lstm(), layer=5)
    with pytest.raises(IndexError, match="no sample 9"):
        show(lstm(), sample=9)
    empty = call("output", None)
    empty.why["output"] = "the branch was not taken"
    with pytest.raises(LookupError, match="the branch was not taken"):
        show(empty)


# attention


def test_attention_rows_are_queries_and_tokens_name_both_axes():
    drawn = plot_attention(attention()[0, 0], tokens=list("abcdefg"))
    assert [label.get_text() for label in drawn.axes.get_yticklabels()] == list("abcdefg")
    assert drawn.norm.vmin == 0.0


def test_rollout_agrees_with_its_slow_definition():
    layers = [attention(1, 3, 5)[0], attention(1, 3, 5)[0].roll(1, 0)]
    expected = torch.eye(5, dtype=torch.double)
    for weights in layers:
        mean = weights.double().mean(0)
        mixed = 0.5 * mean + 0.5 * torch.eye(5)
        expected = (mixed / mixed.sum(1, keepdim=True)) @ expected
    assert np.allclose(rollout(layers), expected)
    assert np.allclose(rollout(layers).sum(axis=1), 1)


def test_rollout_of_cross_attention_is_refused():
    with pytest.raises(ValueError, match="square"):
        rollout([torch.rand(2, 3, 5)])


def test_a_store_of_several_attentions_shows_layers_by_heads_and_rollout():
    from inspector.records import Store

    store = Store(("attention",), model="Encoder")
    for i in range(3):
        store.add(Call(Site(f"layers.{i}", 0), "Attention", ("attention",))).values = {"attention": attention()}
    figure = show(store, kind="attention", tokens=list("abcdefg"))
    assert "rollout over all layers" in titles(figure)
    assert sum(len(ax.get_images()) for ax in figure.axes) == 1 + 3 * 4  # the whole and every head
    assert "not what made the model decide" in figure.words
    with pytest.raises(LookupError, match="'attention'"):
        show(made.store(), kind="attention")


def test_patches_leave_the_class_token_out():
    weights = torch.zeros(1, 10, 10)
    weights[0, 0, 1], weights[0, 0, 0] = 0.7, 0.3
    (drawn,) = plot_patches(weights, (3, 3))
    assert drawn.get_array()[0, 0] == pytest.approx(0.7)
    with pytest.raises(ValueError, match="fewer than"):
        plot_patches(weights, (4, 4))


# filters


def test_filters_of_three_channels_are_pictures_and_others_signed_maps():
    colour = plot_filters(torch.randn(8, 3, 5, 5))
    assert colour.get_array().ndim == 3
    maps = plot_filters(torch.randn(4, 6, 3, 3))
    assert maps.norm(0.0) == 0.5
    with pytest.raises(ValueError, match="out, in, height, width"):
        plot_filters(torch.randn(4, 6))


# training


def training():
    steps = np.arange(10)
    names = ["a.weight", "a.bias", "b.weight"]
    series = [Series("param_grad", n, "rms") for n in names] + [Series("update", n, "ratio") for n in names]
    cells = np.tile(np.array([1e-3, 1e-2, 0.0, 1e-3, 1e-2, 1e-4]), (10, 1))
    cells[9, 0] = np.nan
    present = np.ones(cells.shape, dtype=bool)
    present[8:, 1] = False
    counts = np.zeros((10, len(LOG2_BINS)))
    counts[:, 0], counts[:, 40] = 3, 7
    loss = np.where(steps < 6, 1.0 / (1 + steps), np.nan)
    found = [Finding("nan", "a.weight", 9, float("nan"), 0, "not finite")]
    histograms = {"param_grad": {"a.weight": (steps, counts)}}
    return History("step", {"loss": (steps, loss)}, Stats.dense(steps, series, cells, present), found, histograms)


def test_gradient_flow_marks_zeros_and_leaves_gaps():
    marks = plot_gradient_flow(training().stats, step=9)
    ax = marks[0].axes if marks else None
    assert ax is None or ax.get_yscale() == "log"
    marks = plot_gradient_flow(training().stats, step=5)
    assert [list(mark.get_xdata()) for mark in marks] == [[0], [1]]
    zero = [line for line in marks[0].axes.lines if line.get_label() == "exactly 0"]
    assert list(zero[0].get_xdata()) == [2]
    gap = plot_gradient_flow(training().stats, step=8)
    assert [list(mark.get_xdata()) for mark in gap] == [[0]]


def test_update_ratios_stand_beside_the_usual_one_in_a_thousand():
    lines = plot_update_ratio(training().stats)
    assert len(lines) == 3
    usual = [line for line in lines[0].axes.lines if list(line.get_ydata()) == [1e-3, 1e-3]]
    assert len(usual) == 1


def test_several_runs_share_the_axes_of_gradients_and_updates_and_the_colours_of_maps():
    first, second = training(), training()
    first.stats.cells[9, 0], second.stats.cells[9, 0] = 1e-3, 1.0
    figure = show(first, second)
    maps = [ax.images[0] for ax in figure.axes if ax.images]
    assert maps[0].get_clim() == maps[1].get_clim()
    flow, ratio = figure.axes[1:3]
    assert [list(line.get_ydata()[:1]) for line in flow.lines[:2]] == [[pytest.approx(1e-3)], [pytest.approx(1.0)]]
    assert len(ratio.get_legend_handles_labels()[1]) == 2
    assert not [ax for ax in show(*[first] * 4).axes if ax.images]


def test_a_zero_among_update_ratios_counts_for_the_median():
    series = [Series("update", f"p{i}", "ratio") for i in range(20)]
    cells = np.tile(np.r_[np.zeros(15), np.full(5, 1e-3)], (5, 1))
    (line,) = plot_update_ratio(Stats.dense(np.arange(5), series, cells, np.ones(cells.shape, dtype=bool)))
    assert np.isnan(line.get_ydata()).all()


def test_on_log_colours_zero_is_black_and_not_the_colour_of_what_was_not_measured():
    cells = np.array([[1.0, 1e-4, 0.0, 0.0]])
    present = np.array([[True, True, True, False]])
    series = [Series("output", name, "std") for name in "abcd"]
    drawn = plot_layers(Stats.dense(np.arange(1), series, cells, present), "output", "std")
    paint = drawn.axes.images[1].get_array()[:, 0]
    assert paint.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_many_update_ratios_become_a_band():
    series = [Series("update", f"p{i}", "ratio") for i in range(100)]
    cells = np.tile(np.arange(1, 101) * 1e-4, (5, 1))
    stats = Stats.dense(np.arange(5), series, cells, np.ones(cells.shape, dtype=bool))
    (line,) = plot_update_ratio(stats)
    assert line.get_ydata() == pytest.approx([50.5e-4] * 5, rel=0.02)


def test_statistics_that_were_not_watched_say_how_to_watch_them():
    with pytest.raises(LookupError, match="Monitor"):
        plot_gradient_flow(Stats())
    with pytest.raises(LookupError, match="Monitor"):
        plot_update_ratio(Stats())


def test_a_histogram_shows_shares_by_power_of_two():
    drawn = plot_histogram(training(), "param_grad", "a.weight")
    board = drawn.get_array()
    assert board.shape == (2, 10)  # zero stands right below the smallest magnitude there is
    assert np.allclose(board[0], 0.3)
    assert np.allclose(board[1], 0.7)
    assert [label.get_text() for label in drawn.axes.get_yticklabels()] == ["zero", "0.5"]
    with pytest.raises(LookupError, match=r"there are a\.weight"):
        plot_histogram(training(), "param_grad", "b")


def test_steps_at_which_a_scalar_broke_are_shaded():
    figure = show(training())
    loss = next(ax for ax in figure.axes if ax.get_title("left") == "loss")
    shaded = [patch for patch in loss.patches if patch.get_alpha() == 0.4]
    assert len(shaded) == 1
    assert shaded[0].get_x() == pytest.approx(5.5)


def test_the_maps_of_one_run_share_their_steps():
    figure = show(training(), heat=[("param_grad", "rms"), ("update", "ratio")])
    shapes = {ax.get_images()[0].get_array().shape for ax in figure.axes if "·" in ax.get_title("left")}
    assert shapes == {(3, 10)}


def test_maps_run_evenly_in_time_and_hide_no_broken_value():
    steps = np.array([10, 20, 30, 40, 41, 42, 43, 80, 90, 100])
    series = [Series("output", name, s) for name in "ab" for s in ("std", "nan")]
    cells = np.tile(np.array([1.0, 0.0, 2.0, 0.0]), (10, 1))
    present = np.ones(cells.shape, dtype=bool)
    cells[5, 1], present[5, 0] = 3.0, False  # "a" has NaNs at step 42, so it has no std there
    drawn = plot_layers(Stats.dense(steps, series, cells, present), "output", "std")
    values = drawn.get_array()
    assert values.shape == (2, 100)  # a column for each step from 10 to 109
    assert not np.ma.getmaskarray(values)[:, :32].any()
    assert np.ma.getmaskarray(values)[0, 32]
    assert np.ma.getmaskarray(values)[1, 43 + 10 - 10 : 70].all()  # nothing was measured between 53 and 79
    broken = drawn.axes.get_images()[1].get_array()[..., 3]
    assert np.flatnonzero(broken[0]).tolist() == [32]
    assert not broken[1].any()
    thinned = np.arange(1, 5001)
    many = np.ones((5000, 1))
    many[777] = np.inf
    drawn = plot_layers(Stats.dense(thinned, series[:1], many, many > 0), "output", "std")
    assert drawn.axes.get_images()[1].get_array()[..., 3].sum() == 1


def test_a_finding_about_no_layer_marks_none():
    found = [Finding("nan", "", 3, 1.0, 0.0, "somewhere"), Finding("nan", "a", 3, 1.0, 0.0, "here")]
    series = [Series("output", name, "std") for name in ("a", "")]
    stats = Stats.dense(np.arange(1, 6), series, np.ones((5, 2)), np.ones((5, 2), dtype=bool))
    (marks,) = plot_layers(stats, "output", "std", findings=found).axes.lines
    assert marks.get_ydata().tolist() == [0]
    assert marks.get_xdata().tolist() == [2.0]


def test_histograms_over_steps_are_part_of_the_picture_and_can_be_chosen():
    counts = np.zeros((3, 66), dtype=int)
    counts[:, 40] = 5
    history = training()
    history.histograms = {"output": {"a": (np.array([1, 2, 3]), counts), "b": (np.array([1, 2, 3]), counts)}}
    titles = [ax.get_title("left") for ax in show(history).axes]
    assert any("|values| of output at b" in title for title in titles)
    titles = [ax.get_title("left") for ax in show(history, histograms=[("output", "a")]).axes]
    assert any("|values| of output at a" in title for title in titles)


# many


def test_several_attributions_keep_the_scale_of_each():
    first = made.image_attribution()
    second = replace(first, values=first.values * 100, method="other")
    figure = show(first, second)
    norms = {im.norm.vmax for ax in figure.axes for im in ax.get_images() if im.get_array().ndim == 2}
    assert len(norms) == 2
    assert any("other" in text for text in texts(figure))


def test_inputs_of_one_number_each_are_one_row_of_bars():
    from inspector.records import Attribution

    inputs = {"user": torch.tensor([7, 8]), "item": torch.tensor([1, 2])}
    values = {"user": torch.tensor([[1.0, 1.0], [0.0, 0.0]]), "item": torch.tensor([[-1.0, 0.0], [0.5, 0.0]])}
    record = Attribution(values, Samples(inputs), 0, "saliency", axes={"user": (), "item": ()})
    figure = show(record)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["user = 7", "item = 1"]
    assert [patch.get_width() for patch in figure.axes[0].patches] == [2.0, -1.0]


def test_an_input_of_several_is_chosen_by_its_name():
    from inspector.records import Attribution

    inputs = {"left": torch.randn(2, 1, 8, 8), "right": torch.randn(2, 1, 8, 8)}
    record = Attribution(inputs, Samples(inputs), 0, "saliency", axes={"left": (2, 3), "right": (2, 3)})
    assert "of right" in show(record, piece="right").words
    with pytest.raises(LookupError, match="'left', 'right'"):
        show(record, piece="middle")


AWKWARD = {
    "video": torch.randn(2, 3, 4, 8, 8),
    "complex": torch.randn(4, 5, dtype=torch.complex64),
    "mask": torch.eye(5) > 0,
    "number": torch.tensor(3.0),
    "empty": torch.zeros(0, 3),
    "meta": torch.zeros(3, 3, device="meta"),
    "sparse": torch.eye(4).to_sparse(),
    "broken": torch.full((3, 3), float("nan")),
    "bfloat16": torch.eye(6).bfloat16(),
    "long": torch.randn(5000),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_any_tensor_is_drawn_and_told_alone_in_a_call_and_in_a_store(name):
    from inspector import describe
    from inspector.records import Store

    kept = call("output", AWKWARD[name])
    store = Store(("output",))
    store.add(kept)
    for record in (AWKWARD[name], kept, store):
        assert show(record).png(dpi=25).startswith(b"\x89PNG")
    assert describe(kept)
    assert describe(store)


def test_an_empty_batch_has_no_picture():
    with pytest.raises(ValueError, match="empty"):
        show(Samples(torch.zeros(0, 1, 8, 8)))


def test_what_has_no_common_picture_is_refused():
    with pytest.raises(ValueError, match="in pairs"):
        show(made.store(), made.store(), made.store())
    with pytest.raises(ValueError, match="empty"):
        show({})


def test_true_evidence_is_marked_and_the_mark_is_explained():
    record = made.image_attribution(2)
    mask = torch.zeros(2, 28, 28, dtype=torch.bool)
    mask[:, 4:9, 4:9] = True
    figure = show(replace(record, samples=replace(record.samples, evidence=mask)))
    assert "Orange: the true evidence." in figure.words
    assert len(figure.axes[0].collections) == 2
    assert "Orange" not in show(record).words


def test_a_map_without_signs_is_not_said_to_speak_against():
    record = made.image_attribution(1)
    unsigned = replace(record, values=record.values.abs())
    assert "how much it counts (no sign)" in texts(show(unsigned))
    assert "against  ←  0  →  for" in texts(show(record))


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "import matplotlib.pyplot", "%matplotlib inline"])
def test_a_notebook_shows_a_picture_exactly_once_and_only_where_it_is_asked(before):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    cells = [before, "import torch\nfrom inspector import show", "kept = show(torch.eye(3))", "show(torch.eye(3))"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    shown = [[out.get("data", {}) for out in cell.outputs] for cell in book.cells]
    assert not any("image/png" in data for outputs in shown[:3] for data in outputs)
    assert ["image/png" in data for data in shown[3]] == [True]
