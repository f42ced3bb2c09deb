"""What was found wrong by looking at every picture with awkward data, and must not come back."""

from __future__ import annotations

import made_records as made
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from torch import nn

from inspector import capture, show
from inspector.records import Attribution, Call, Coverage, Samples, Scores, Status, Store, Summary, Task
from inspector.sites import Site
from inspector.viz import Figure, plot_curves, plot_filters, plot_heads, plot_tensor
from inspector.viz.figure import log_axis
from inspector.viz.lettering import apart, clipped, wide, wrap
from inspector.viz.scales import share
from inspector.words.facts import earliest, innermost


def texts(figure):
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


def hand_made(values, inputs=None, axes=(2, 3), **more):
    samples = more.pop("samples", None) or Samples(values if inputs is None else inputs)
    return Attribution(values, samples, **{"target": 0, "method": "by_hand", "axes": axes, **more})


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.5), (0.3, 0.4), (1e-9, 1e3), (1.0, 10.0)])
def test_a_log_axis_has_plain_numbers_whatever_its_range(low, high):
    figure = Figure()
    ax = figure.add_subplot()
    log_axis(ax, "x", low, high)
    figure.draw_without_rendering()
    labels = [t.get_text() for which in ("major", "minor") for t in ax.get_xticklabels(which=which) if t.get_text()]
    assert 1 <= len(labels) <= 11
    assert all(0.99 * low <= float(label.replace("−", "-")) <= 1.01 * high for label in labels)
    assert not any("$" in label or "mathdefault" in label for label in labels)


def test_no_picture_of_two_runs_or_of_cost_shows_markup_instead_of_numbers():
    for figure in (show(made.store(), made.store(scale=1.05)), show(made.images_compared())):
        assert not [text for text in texts(figure) if "mathdefault" in text]


def test_runs_part_where_the_first_part_differs_and_not_at_the_container_that_hands_it_on():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    x = torch.randn(2, 4)
    with capture(model) as one:
        model(x)
    with torch.no_grad():
        model[1][0].weight.add_(1)
    with capture(model) as other:
        model(x)
    assert "first difference at 1.0" in show(one, other).words


def test_what_a_container_hands_on_did_not_begin_there_and_gradients_run_backwards():
    assert innermost(["(model)", "a", "a.b", "c@1"]) == ["a.b", "c@1"]
    assert innermost(["", "b"]) == ["b"]
    assert innermost(["(model)"]) == ["(model)"]
    assert earliest(["", "a", "b"], "output") == "a"
    assert earliest(["", "a", "b"], "grad") == "b"


def test_names_that_differ_in_one_part_are_told_apart_by_it():
    assert apart(["encoder.0.attn", "encoder.1.attn"]) == ["0", "1"]
    assert apart(["a", "a.b"]) == ["a", "a.b"]
    assert apart(["x.a", "x.a"]) == ["x.a", "x.a"]
    assert apart(["alone"]) == ["alone"]
    layers = {f"encoder.layers.{i}.self_attention.with.a.long.name": torch.rand(2, 5, 5) for i in range(3)}
    ax = plot_heads(layers)[0].axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2"]


def test_lines_are_no_wider_than_the_room_whatever_the_letters():
    for words in ("m" * 300, "i" * 300, "The quick brown fox. " * 20, "", "a"):
        lines = wrap(words, 3.0, 9.0, bold=True).split("\n")
        assert all(wide(line, 9.0, True) <= 3.0 for line in lines)
        assert "".join(lines).replace(" ", "") == words.replace(" ", "")


def test_prose_is_cut_at_its_end_between_words():
    assert clipped("one two three", 50) == "one two three"
    assert clipped("one two three four", 12) == "one two…"
    assert len(clipped("x" * 99, 20)) <= 20


def test_nothing_is_not_less_than_a_tenth_of_a_percent():
    assert (share(0.0), share(1e-9), share(0.5)) == ("0%", "<0.1%", "50.0%")


@pytest.mark.parametrize(
    ("make", "most"), [(made.row_attribution, 4), (made.series_attribution, 3), (made.token_attribution, 6)]
)
def test_a_picture_says_how_many_samples_are_really_in_it(make, most):
    record = make(n=9)
    assert f"{most} of 9 samples shown" in show(record).words
    assert "2 of 9 samples shown" in show(record, samples=2).words
    assert "9 samples" in show(record, samples=99).words


def test_a_comparison_says_how_many_samples_are_in_it():
    assert "3 of 6 samples shown" in show(made.images_compared(), samples=3).words
    many = made.comparison_of(lambda seed: made.image_attribution(n=20))
    assert "16 of 20 samples shown" in show(many, samples=20).words


@pytest.mark.parametrize("samples", [0, -1])
def test_showing_no_sample_is_refused(samples):
    with pytest.raises(ValueError, match="ask for 1 or more"):
        show(made.image_attribution(), samples=samples)
    with pytest.raises(ValueError, match="ask for 1 or more"):
        show(made.images_compared(), samples=samples)


def test_many_samples_stand_in_bands_and_not_in_one_line():
    figure = show(made.image_attribution(n=20), samples=20)
    boards = [ax for ax in figure.axes if ax.images]
    assert [len(board.get_xticks()) for board in boards] == [8, 8, 4]


def test_text_too_long_for_one_figure_is_bounded_and_says_so(monkeypatch):
    monkeypatch.setattr("inspector.viz.attribution.LINES", 9)
    figure = show(made.token_attribution(n=1, words=["word"] * 600))
    assert "The first 162 of 600 tokens shown." in figure.words
    assert figure.get_figheight() < 7
    assert "1 of 3 samples shown" in show(made.token_attribution(n=3, words=["word"] * 90), samples=3).words


def test_layers_without_positions_are_named_and_take_no_room():
    maps = {"conv": made.image_attribution(heat=(7, 7)), "": hand_made(torch.randn(6, 3), torch.rand(6, 1, 28, 28), (1,))}
    figure = show(maps)
    assert "No map over the positions: (model)." in figure.words
    assert "no map" not in texts(figure)


def test_what_is_no_map_over_steps_is_not_drawn_as_one():
    x = torch.randn(2, 40, 3)
    maps = {
        "lstm": hand_made(torch.randn(2, 40, 5), x, (1,)),
        "strided": hand_made(torch.randn(2, 10, 5), x, (1,)),
        "out": hand_made(torch.randn(2, 4), x, (1,)),
    }
    figure = show(maps)
    strips = [image for ax in figure.axes for image in ax.images]
    assert {tuple(image.get_extent())[:2] for image in strips} == {(-0.5, 39.5)}
    assert "No map over the positions: out." in figure.words


def test_evidence_lies_behind_the_strips_and_changes_none_of_their_colours():
    attribution = made.series_attribution()
    mask = torch.zeros(3, 120, dtype=torch.bool)
    mask[:, 10:30] = True
    record = hand_made(attribution.values, axes=(1,), samples=Samples(attribution.samples.inputs, evidence=mask))
    ax = show(record).axes[0]
    assert all(patch.get_zorder() < image.get_zorder() for patch in ax.patches for image in ax.images)


def test_numbers_that_are_not_finite_are_marked_in_every_kind_of_tensor():
    for values in ([1.0, float("nan"), 2.0], [0.0] * 60 + [float("inf")]):
        ax = Figure().add_subplot()
        plot_tensor(torch.tensor(values), ax=ax)
        assert any(patch.get_facecolor()[2] == 0 for patch in ax.patches)  # yellow has no blue
    weight = torch.zeros(2, 3, 4, 4)
    weight[0, 0, 1, 1] = float("nan")
    ax = plot_filters(weight).axes
    assert len(ax.images) == 2


def test_ticks_over_indices_are_indices():
    for shape in ((3, 2000), (2, 3), (1, 5), (30,)):
        ax = Figure(figsize=(6, 4)).add_subplot()
        plot_tensor(torch.randn(shape), ax=ax)
        axes = (ax.get_xticks(), ax.get_yticks()) if len(shape) == 2 else (ax.get_xticks(),)
        assert all(float(tick).is_integer() for ticks in axes for tick in ticks)


def test_gradients_over_forty_orders_of_magnitude_keep_their_ticks_apart():
    store = Store(("grad",), model="deep")
    for i in range(60):
        store.add(Call(Site(f"layer{i}", 0), "Linear", ("grad",))).values = {
            "grad": torch.randn(4, 8).double() * 10.0 ** (-i)
        }
    ax = show(store).axes[0]
    ticks = [t for t in ax.get_yticks() if t > 0]
    assert min(ticks) >= 1e-13


def test_more_sites_than_columns_share_them_and_hide_no_extreme():
    store = Store(("output",), model="deep")
    for i in range(1000):
        value = torch.ones(4, 8) * (50.0 if i == 777 else 1.0)
        store.add(Call(Site(f"layer{i}", 0), "Linear", ("output",))).values = {"output": value}
    ax = show(store).axes[0]
    assert "5 to a column" in ax.get_xlabel()
    tops = np.concatenate([path.vertices[:, 1] for c in ax.collections for path in c.get_paths()])
    assert tops.max() == pytest.approx(50.0)


def test_a_recurrent_layer_that_puts_time_first_is_read_along_time():
    model = nn.LSTM(3, 16)
    with capture(model) as store:
        model(torch.randn(50, 4, 3))
    image = show(store[""], sample=3).axes[0].images[0]
    assert image.get_array().shape == (16, 50)
    assert np.allclose(image.get_array(), store.at(":output[0]")[:, 3].T)


def test_attention_that_was_asked_and_is_not_there_says_why():
    model = nn.Linear(3, 3)
    with capture(model, what="attention") as store:
        model(torch.randn(2, 3))
    with pytest.raises(LookupError, match="asked of 1 call"):
        show(store, kind="attention")


def test_missing_modules_come_first_where_not_all_are_shown():
    found = {f"m{i}": Status("Linear", 1) for i in range(100)} | {"lost": Status("Linear", 0, "branch not taken")}
    labels = [label.get_text() for label in show(Coverage(found)).axes[0].get_yticklabels()]
    assert labels[0] == "lost"


def test_one_is_not_written_as_many():
    scores = Scores({"a": {"deletion": torch.rand(3)}})
    assert "1 method, 1 metric" in show(scores).words


def test_a_summary_whose_tail_is_cut_does_not_claim_to_have_folded():
    figure = show(made.summarized(modules=200))
    assert "rows shown" in figure.words
    assert "folded" not in figure.words
    assert isinstance(made.summarized(), Summary)


def test_equal_curves_do_not_hide_each_other():
    curve = next(iter(made.images_compared().curves.values()))["deletion"]
    lines = plot_curves({"a": curve, "b": curve})
    assert lines[0].get_linewidth() > lines[1].get_linewidth()


def test_features_of_samples_are_named_and_rows_are_bounded():
    samples = Samples(torch.randn(500, 4), names={"features": ["age", "income", "x" * 200, "last"]})
    figure = show(samples)
    assert "60 of 500 samples shown" in figure.words
    assert {"age", "income", "last"} <= set(texts(figure))


def test_classes_without_a_sample_say_so():
    record = made.assessed(torch.diag(torch.tensor([3, 0, 2])), "small", 3)
    assert "no samples" in texts(show(record))


TWICE = {
    "attribution": made.image_attribution,
    "assessment": made.assessment,
    "call": lambda: made.store()["features.1.conv"],
    "comparison": made.images_compared,
    "coverage": lambda: made.store().coverage,
    "curve": lambda: made.images_compared().curves["random"]["deletion"],
    "finding": lambda: made.history().findings[0],
    "history": made.history,
    "samples": lambda: made.image_attribution().samples,
    "unlabelled samples": lambda: Samples(torch.rand(3, 2)),
    "scores": lambda: made.images_compared().scores,
    "store": made.store,
    "summary": made.summarized,
    "task": lambda: Task(made.image_attribution().samples, made.image_attribution(n=2).samples, "toy"),
    "tensor": lambda: torch.randn(4, 5),
}


@pytest.mark.parametrize("name", TWICE)
def test_two_of_every_kind_share_one_picture(name):
    figure = show(TWICE[name](), TWICE[name]())
    assert isinstance(figure, Figure)
    assert figure.words
    assert not [text for text in texts(figure) if "mathdefault" in text]


def test_several_scores_are_on_one_axis_and_told_apart_by_their_number():
    scores = made.images_compared().scores
    ax = show(scores, scores).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"{i}: {name}" for i in (1, 2) for name in scores]


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(TypeError, match=r"'nope' is no option .* it takes samples, piece, figsize"):
        show(made.image_attribution(), nope=1)
    with pytest.raises(TypeError, match="it takes kind, sample"):
        show(made.store(), nope=1)


def test_what_has_no_picture_is_told_what_has_one_and_what_to_do():
    with pytest.raises(TypeError, match=r"int has no picture; show takes Assessment, .*make a tensor"):
        show(3)
