"""Pictures are judged by their artists and norms, never by their pixels."""

import io
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import made_records as made
import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from torch import nn

from inspector import capture, edit
from inspector.viz import Figure, show, tokens_html
from inspector.viz.images import as_picture, plot_mosaic, plot_overlay
from inspector.viz.scales import Scale, colour_map, sequential, signed

RECORDS = {
    "store": made.store,
    "call": lambda: made.store()["features.1.conv"],
    "image": made.image_attribution,
    "coarse map": lambda: made.image_attribution(2, 3, (64, 48), heat=(7, 7)),
    "thirteen channels": lambda: made.image_attribution(3, 13, (16, 32)),
    "series": made.series_attribution,
    "wide series": lambda: made.series_attribution(channels=28, steps=28),
    "long series": lambda: made.series_attribution(1, 2000, 2),
    "tokens": made.token_attribution,
    "512 tokens": lambda: made.token_attribution(1, [f"w{i}" for i in range(512)]),
    "rows": made.row_attribution,
    "images compared": made.images_compared,
    "series compared": made.series_compared,
    "tokens compared": made.tokens_compared,
    "rows compared": made.rows_compared,
    "history": made.history,
    "assessment": made.assessment,
    "summary": made.summarized,
    "tensor": lambda: torch.randn(3, 4, 5),
}


@pytest.fixture(scope="module", params=RECORDS)
def drawn(request):
    """Drawn once, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas = FigureCanvasAgg(show(RECORDS[request.param]()))
        canvas.draw()
    return canvas


def pictures(figure):
    return [image for ax in figure.axes for image in ax.get_images()]


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_every_noun_has_a_picture_that_is_drawn_without_a_warning_and_says_what_it_is(drawn):
    assert np.asarray(drawn.buffer_rgba()).std() > 0
    assert drawn.figure.words.strip()


def test_no_words_overlap_or_leave_any_picture(drawn):
    assert_words_keep_apart(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.45, 1.5])
@pytest.mark.parametrize("name", ["store", "image", "images compared", "history", "assessment", "rows"])
def test_no_words_overlap_at_another_size(name, factor):
    natural = show(RECORDS[name]()).get_size_inches()
    canvas = FigureCanvasAgg(show(RECORDS[name](), figsize=tuple(natural * factor)))
    assert tuple(canvas.figure.get_size_inches()) == pytest.approx(tuple(natural * factor))
    canvas.draw()
    assert_words_keep_apart(canvas)


def assert_words_keep_apart(drawn):
    wide, high = drawn.figure.bbox.width, drawn.figure.bbox.height
    with drawn.figure._shrunk():
        boxes = [(text.get_text(), text.get_window_extent(drawn.get_renderer())) for text in words_of(drawn.figure)]
    for i, (one, a) in enumerate(boxes):
        assert min(a.x0, a.y0) >= -2, f"{one!r} is cut off"
        assert a.x1 <= wide + 2, f"{one!r} is cut off"
        assert a.y1 <= high + 2, f"{one!r} is cut off"
        for other, b in boxes[:i]:
            across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 2 or down < 2, f"{one!r} lies on {other!r}"


def words_of(figure):
    """Every text that is drawn and not turned."""
    found = list(figure.texts)
    for ax in figure.axes:
        found += [*ax.texts, ax.title, ax._left_title]
        if ax.axison:
            found += [axis.label for axis in (ax.xaxis, ax.yaxis)]
            ticks = [tick for axis in (ax.xaxis, ax.yaxis) for tick in axis._update_ticks()]
            found += [label for tick in ticks for label in (tick.label1, tick.label2)]
        found += ax.get_legend().get_texts() if ax.get_legend() else []
    return [text for text in found if text.get_visible() and text.get_text().strip() and not text.get_rotation()]


def test_a_picture_shows_itself_and_lives_outside_pyplot():
    figure = show(made.image_attribution(1))
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_looking_changes_no_setting_of_the_users_and_none_of_the_records():
    before = dict(matplotlib.rcParams)
    record = made.image_attribution()
    values = record.values.clone()
    show(record).png(dpi=30)
    assert dict(matplotlib.rcParams) == before
    assert torch.equal(record.values, values)


def test_the_users_own_settings_do_not_reach_our_pictures():
    plain = show(made.assessment()).png(dpi=40)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "text.usetex": False, "lines.linewidth": 9}):
        assert show(made.assessment()).png(dpi=40) == plain


@pytest.mark.slow
def test_importing_and_showing_needs_no_pyplot():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import made_records as made; from inspector import show, describe;"
        "show(made.assessment()).png(dpi=30); describe(made.assessment());"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'captum' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_vector_export_keeps_text_as_text_and_hostile_names_as_names():
    record = made.token_attribution(
        1, ["</script><img onerror=x>", "$\\frac{1}{2}$", "a & b", "\x07", "日本", "1", "2", "3"]
    )
    buffer = io.BytesIO()
    show(record).savefig(buffer, format="svg")
    words = "".join(ElementTree.fromstring(buffer.getvalue()).itertext())
    assert "</script><img onerror=x>" in words
    assert "$\\frac{1}{2}$" in words
    assert "a & b" in words


def test_pdf_export_embeds_fonts_as_truetype():
    buffer = io.BytesIO()
    show(made.assessment()).savefig(buffer, format="pdf")
    assert b"/Type3" not in buffer.getvalue().replace(b" ", b"")


# scales


@pytest.mark.parametrize("seed", range(5))
def test_zero_lies_exactly_in_the_middle_whatever_the_values(seed):
    values = torch.randn(50, generator=torch.Generator().manual_seed(seed)) ** 3 + seed
    scale = signed(values)
    assert scale.norm(0.0) == 0.5
    assert scale.cmap(scale.norm(0.0)) == colour_map("RdBu_r")(128)
    red, green, blue, _ = scale.cmap(scale.norm(0.0))
    assert max(red, green, blue) - min(red, green, blue) < 0.01
    assert scale.high == pytest.approx(np.percentile(values.abs().numpy(), 99))


def test_limits_fall_back_to_the_maximum_and_then_to_one():
    single = torch.zeros(30, 30)
    single[3, 4] = -2.0
    assert (signed(single).high, signed(single).rule) == (2.0, "maximum of |a|")
    assert (signed(torch.zeros(5)).high, signed(torch.zeros(5)).rule) == (1.0, "all values are 0")
    assert signed(torch.full((4,), float("nan"))).broken == 4
    assert signed([]).high == 1.0


def test_what_is_not_finite_has_its_own_colour_and_is_counted():
    scale = signed(torch.tensor([1.0, float("nan"), float("inf"), -1.0]))
    assert scale.broken == 2
    assert "2 not finite" in str(scale)
    bad = scale.cmap(np.ma.masked_invalid(np.array([np.nan])))[0]
    assert all(np.abs(np.array(bad) - np.array(scale.cmap(v))).max() > 0.2 for v in (0.0, 0.5, 1.0))


def test_values_beyond_the_limits_are_counted_and_the_bar_has_arrows():
    scale = signed(torch.arange(1, 101).float())
    assert scale.beyond == pytest.approx(0.01)
    assert scale.extend == "both"
    assert "1.0% of the values lie beyond" in str(scale)


def test_values_that_are_never_negative_start_at_zero_and_signed_ones_stay_signed():
    assert sequential(torch.rand(9)).low == 0.0
    assert sequential(torch.tensor([-1.0, 2.0])).low < 0


@pytest.mark.parametrize("channels", [1, 2, 3, 13])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-2.1, 2.6), (5, 5)])
def test_an_image_of_any_channels_and_range_becomes_a_picture(channels, low, high):
    picture, _ = as_picture(torch.rand(channels, 6, 9) * (high - low) + low)
    assert picture.shape == (6, 9, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_an_image_in_range_is_shown_as_it_is():
    image = torch.rand(3, 4, 5)
    assert np.allclose(as_picture(image)[0], image.permute(1, 2, 0))


# panels


def test_many_maps_are_one_image_sorted_by_activity_with_dead_ones_crossed_out():
    maps = torch.rand(64, 5, 5) + 0.1
    maps[7] = 0
    maps[20] = 5
    drawn = plot_mosaic(maps)
    assert len(drawn.axes.get_images()) == 1
    assert np.allclose(drawn.get_array()[:5, :5], 5)
    assert len(drawn.axes.lines) == 2  # one cross
    assert "1 dead" in drawn.axes.get_title("left")


def test_a_mosaic_says_how_many_of_how_many_maps_it_shows():
    assert "10 of 64 shown" in plot_mosaic(torch.rand(64, 3, 3), limit=10).axes.get_title("left")


def test_an_overlay_is_opaque_only_where_the_heat_is():
    heat = torch.zeros(4, 4)
    heat[0, 0], heat[3, 3] = 1.0, -1.0
    shown = plot_overlay(torch.ones(1, 8, 8), heat).get_array()
    assert shown[0, 0, 0] > shown[0, 0, 2]
    assert shown[7, 7, 2] > shown[7, 7, 0]
    assert np.allclose(shown[4, 2], shown[4, 2, 0])


def test_the_map_of_an_image_lies_on_one_norm_over_all_samples_shown():
    record = made.image_attribution()
    maps = [im for im in pictures(show(record)) if im.get_array().ndim == 2 and im.get_array().shape == (28, 28)]
    assert len(maps) == 6
    assert {(im.norm.vmin, im.norm.vmax) for im in maps} == {(-maps[0].norm.vmax, maps[0].norm.vmax)}
    assert all(im.get_interpolation() == "nearest" for im in maps)
    for i, im in enumerate(maps):
        assert np.allclose(im.get_array(), record.heat[i], atol=1e-6)


def test_the_title_names_method_target_baseline_options_and_error():
    record = made.image_attribution(1)
    words = show(record).words
    for part in ("integrated_gradients", "→ zero", "baseline 0", "n_steps=50", f"{record.delta.abs().max():.3g}"):
        assert part in words


def test_a_coarse_map_keeps_its_own_resolution_and_says_so():
    figure = show(made.image_attribution(2, 3, (64, 48), heat=(7, 7)))
    assert any(im.get_array().shape == (7, 7) for im in pictures(figure))
    assert "7×7 values for 64×48 pixels" in figure.words


@pytest.mark.parametrize("fill", [0.0, 1.0, float("nan"), float("inf")])
def test_degenerate_maps_are_drawn_and_stay_neutral_or_are_marked(fill):
    record = replace(made.image_attribution(2), values=torch.full((2, 1, 28, 28), fill))
    figure = show(record)
    figure.png(dpi=30)
    mapped = next(im for im in pictures(figure) if im.get_array().ndim == 2)
    colour = mapped.cmap(mapped.norm(mapped.get_array()))[0, 0, :3]
    if fill == 0.0:
        assert np.ptp(colour) < 0.01
    if fill != fill or fill == float("inf"):
        assert "not finite" in figure.words


def test_one_pixel_and_very_large_images_are_drawn():
    show(made.image_attribution(1, 1, (1, 1))).png(dpi=30)
    show(made.image_attribution(1, 1, (3000, 40))).png(dpi=30)


def test_each_channel_of_a_series_has_its_signed_strip_and_padding_is_covered():
    figure = show(made.series_attribution())
    strips = [im for im in pictures(figure) if im.get_array().shape == (1, 120)]
    assert len(strips) == 9
    assert all(isinstance(im.norm, Normalize) and im.norm(0.0) == 0.5 for im in strips)
    assert "padding" in figure.words


def test_tokens_tell_their_sign_by_more_than_hue():
    words = ["good", "bad", "so"]
    record = made.token_attribution(1, words)
    record = replace(record, values=torch.tensor([[[1.0], [-1.0], [0.0]]]), samples=replace(record.samples, valid=None))
    underlines = [line.get_linestyle() for ax in show(record).axes for line in ax.lines]
    assert underlines == ["-", "--"]
    page = tokens_html(words, record.heat[0])
    assert "solid" in page
    assert "dashed" in page
    assert "+1" in page


def test_token_html_is_inert():
    page = tokens_html(["</p><script>alert(1)</script>", '" onmouseover="x'], torch.tensor([1.0, float("nan")]))
    assert "<script>" not in page
    assert 'onmouseover="x' not in page.replace("&quot;", "") or "&quot; onmouseover=&quot;" in page
    assert page.count("<span") == 2


def test_bars_show_the_largest_features_and_sum_the_rest():
    record = made.row_attribution(1, 18)
    bars = [patch.get_width() for patch in show(record).axes[0].patches]
    heat = record.heat[0].numpy()
    order = np.argsort(-np.abs(heat))
    assert np.allclose(bars, [*heat[order[:12]], heat[order[12:]].sum()])


# comparison


def heat_norms(figure):
    return {(im.norm.vmin, im.norm.vmax) for im in pictures(figure) if im.get_array().ndim == 2}


@pytest.mark.parametrize(("scale", "count"), [("shared", 1), ("row", 4), ("panel", 24)])
def test_the_scale_is_shared_as_asked_and_printed(scale, count):
    figure = show(made.images_compared(), scale=scale, parts=["grid"])
    assert len(heat_norms(figure)) == count
    assert {"shared": "One scale", "row": "Each row", "panel": "Each map"}[scale] in figure.words
    assert any("±" in text for text in texts(figure))


def test_by_default_methods_of_different_units_do_not_share_a_scale():
    assert len(heat_norms(show(made.images_compared(), parts=["grid"]))) == 4


def test_intervals_in_the_picture_are_those_of_the_scores():
    record = made.images_compared()
    ax = next(ax for ax in show(record, parts=["scores"]).axes if ax.get_title("left") == "deletion")
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == [record.scores.interval(label, "deletion")[0] for label in record.labels]
    assert ax.get_xlabel() == "← lower is better"


def test_an_undefined_score_says_so():
    assert "not defined" in texts(show(made.images_compared(), parts=["scores"]))


def test_warnings_of_a_comparison_stand_in_its_picture():
    assert "chosen because it is the last" in show(made.images_compared()).words


def test_wrong_words_for_scale_and_parts_name_the_right_ones():
    with pytest.raises(ValueError, match="'shared', 'row'"):
        show(made.images_compared(), scale="rows")
    with pytest.raises(ValueError, match="choose from grid"):
        show(made.images_compared(), parts=["grids"])


# history, assessment, store, summary


def test_validation_lies_on_the_axes_of_its_training_curve_and_findings_come_first():
    record = made.history()
    figure = show(record)
    loss = next(ax for ax in figure.axes if ax.get_title("left") == "loss")
    assert [line.get_label() for line in loss.lines[:2]] == ["loss", "val_loss"]
    assert loss.lines[1].is_dashed()
    assert figure.words.index("never fired") < figure.words.index("not finite")


def test_layers_by_steps_keeps_zero_absent_and_broken_apart():
    figure = show(made.history(), heat=[("param_grad", "rms")])
    ax = next(ax for ax in figure.axes if ax.get_title("left").startswith("param_grad"))
    values, overlay = ax.get_images()
    assert values.get_array().shape == (12, 100)
    assert overlay.get_array().shape == (12, 100, 4)
    assert overlay.get_array()[..., 3].sum() == 50
    assert np.ma.masked_invalid(values.get_array())[1, :25].mask.all()


def test_a_thousand_layers_are_one_image():
    figure = show(made.history(1000, 200), heat=[("output", "mean")])
    ax = next(ax for ax in figure.axes if ax.get_title("left").startswith("output"))
    assert ax.get_images()[0].get_array().shape == (1000, 100)
    assert len(ax.get_yticks()) <= 12


def test_a_statistic_that_is_not_there_names_those_that_are():
    with pytest.raises(LookupError, match="rms of param_grad"):
        show(made.history(), heat=[("output", "norm")])


def test_two_runs_share_their_axes():
    figure = show(made.history(), made.history(seed=1))
    loss = next(ax for ax in figure.axes if ax.get_title("left") == "loss")
    assert len([line for line in loss.lines if line.get_label().endswith("loss")]) == 4


def test_a_history_of_nothing_says_so():
    from inspector.records import History

    assert "Neither scalars nor statistics" in show(History()).words


def test_the_confusion_matrix_is_coloured_by_share_and_written_in_counts():
    record = made.assessment(groups=False)
    ax = show(record).axes[0]
    written = [int(text.get_text()) for text in ax.texts]
    assert written == [int(n) for n in record.confusion.flatten() if n]


def test_groups_are_drawn_with_n_and_with_wilsons_interval():
    figure = show(made.assessment())
    ax = next(ax for ax in figure.axes if "by age\naccuracy" in ax.get_title("left"))
    assert "over 60 (n = 12)" in [label.get_text() for label in ax.get_yticklabels()]
    assert ax.lines[4].get_xdata() == pytest.approx([0.4677, 0.9111], abs=1e-3)  # 9 of 12, by hand


def test_a_store_shows_why_something_is_missing_and_two_stores_their_difference():
    assert "the branch was not taken" in show(made.store()).words
    same = show(made.store(), made.store())
    assert "9 of 9 sites are equal" in same.words
    other = show(made.store(), made.store(scale=1.01))
    assert "first difference at features.0.conv" in other.words
    dots = next(line for line in other.axes[0].lines if line.get_marker() == "o")
    assert dots.get_xdata()[0] == pytest.approx(0.01, rel=1e-3)


def test_two_stores_part_at_the_innermost_module_and_not_at_those_around_it():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Sequential(nn.Linear(3, 2)))
    with capture(model) as one:
        model(torch.ones(2, 3))
    with edit(model, {"1.0": lambda t: t + 1}), capture(model) as other:
        model(torch.ones(2, 3))
    picture = show(one, other)
    assert "first difference at 1.0" in picture.words
    FigureCanvasAgg(picture).draw()
    assert not any(text.get_text() for text in picture.axes[0].get_xticklabels(minor=True))


def test_a_history_without_scalars_says_how_many_steps_it_saw():
    history = made.history()
    history.scalars = {}
    assert f"{history.stats.steps[-1]} {history.unit}s" in show(history).words


def test_a_summary_folds_deep_levels_without_losing_a_parameter():
    from inspector.viz.structure import fold

    rows = list(made.summarized(100).rows)
    kept, depth = fold(rows, 60)
    assert (len(kept), depth) == (60, 1)
    assert kept[-1].name == "… 42 more"
    assert sum(row.parameters for row in kept) == sum(row.parameters for row in rows)


def test_what_has_no_picture_is_refused_with_what_has():
    with pytest.raises(TypeError, match="Comparison"):
        show("a string")
    with pytest.raises(TypeError, match="do not share axes"):
        show(made.history(), made.assessment())


def test_drawing_small_leaves_the_words_as_they_were():
    figure = show(made.image_attribution(1), figsize=(3, 1.2))
    before = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text)]
    figure.png(dpi=40)
    figure.png(dpi=40)
    assert [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text)][: len(before)] == before


def test_a_scale_prints_its_group():
    assert "over 6 samples" in str(Scale(-1.0, 1.0, "99th percentile of |a|", "6 samples"))
    assert isinstance(show(torch.ones(2, 2)), Figure)


def test_words_shrink_with_a_small_figure_so_that_none_overlap():
    canvas = FigureCanvasAgg(show(made.image_attribution(), figsize=(5, 2.9)))
    canvas.draw()
    assert_words_keep_apart(canvas)
