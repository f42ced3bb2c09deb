"""The page in headless Chromium without a network: nothing is fetched, nothing hostile runs, and the pickers work."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import made_records as made
import numpy as np
import pytest
import torch

from inspector import Call, Finding, History, Site, Store, report
from inspector.records import Stats

EVIL = "</script><img src=x onerror=window.PWN=1>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a page offline: (page, what it asked for, what it complained about)."""
    contexts = []

    def open_page(path, **options):
        context = chromium.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        seen = SimpleNamespace(page=page, requests=[], complaints=[])
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        return seen

    yield open_page
    for context in contexts:
        context.close()


def training():
    steps, names = np.arange(0, 40, 2), ["blocks.0", EVIL, "out"]
    backward = list(enumerate(names))[::-1]  # as gradients arrive
    rows = [(s, "grad", n, "rms", 10.0 ** -(i + 1) * (s + 1)) for s in steps for i, n in backward]
    columns = dict(zip(Stats.COLUMNS, zip(*rows, strict=True), strict=True))
    columns["value"] = [float("nan") if (s, n) == (38, "out") else v for s, _, n, _, v in rows]
    finding = Finding("nan", "out", 38, 1.0, 0.0, f"not a number {EVIL}")
    return History("step", {"loss": (steps, 1.0 / (steps + 1))}, Stats(columns), [finding])


def attention(heads=3, positions=7, layers=2):
    torch.manual_seed(0)
    store = Store(("attention",), model="Encoder")
    for i in range(layers):
        call = store.add(Call(Site(f"encoder.{i}.attn", 0), "MultiheadAttention", ("attention",)))
        call.values["attention"] = torch.rand(2, heads, positions, positions).softmax(-1)
    return store


@pytest.fixture(scope="module")
def comparison():
    return made.comparison_of(lambda seed: made.image_attribution(n=3, method="m"))


@pytest.fixture(scope="module")
def page(comparison, tmp_path_factory):
    words = [EVIL, "not", "good", "<pad>"]
    folder = tmp_path_factory.mktemp("page")
    return report(
        *(folder / "page.html", f"# Chapter {EVIL}", comparison, made.token_attribution(words=words)),
        *(made.series_attribution(), made.row_attribution(), training(), attention()),
        title=EVIL,
    )


def test_one_request_no_complaint_and_nothing_hostile_runs(visit, page):
    seen = visit(page)
    assert [url for url in seen.requests if not url.startswith("data:")] == [page.as_uri()]
    assert seen.complaints == []
    assert seen.page.evaluate("window.PWN === undefined && document.querySelectorAll('img[src=x]').length === 0")
    assert seen.page.title() == EVIL
    assert seen.page.locator(".viewer:visible").count() == 6


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_width_in_light_and_dark(visit, page, width, scheme):
    found = visit(page, viewport={"width": width, "height": 800}, color_scheme=scheme).page
    assert found.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    paper, ink = found.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert (brightness(paper) > brightness(ink)) == (scheme == "light")


def test_pickers_choose_sample_method_colours_scale_and_clipping(visit, page, comparison):
    found = visit(page).page
    viewer = found.locator(".viewer").first
    assert viewer.locator(".panel").count() == 1 + 4  # the input, three methods and the control
    first = shot(viewer)
    viewer.get_by_label("Sample", exact=True).select_option("2")
    assert shot(viewer) != first
    viewer.get_by_label("Method", exact=True).select_option(label="saliency")
    assert viewer.locator(".panel").count() == 2
    viewer.get_by_label("Sample", exact=True).select_option("all")
    assert viewer.locator(".panel").count() == 3
    before = shot(viewer)
    viewer.get_by_label("Colours", exact=True).select_option("orange and purple")
    assert shot(viewer) != before
    heat = comparison.attributions["saliency"].heat
    viewer.get_by_label("Clip at percentile", exact=True).fill("100")
    assert limit(viewer) == pytest.approx(float(heat.abs().max()), rel=0.01)
    viewer.get_by_label("Scale", exact=True).select_option("panel")
    assert limit(viewer) == pytest.approx(float(heat[0].abs().max()), rel=0.01)


def test_mouse_and_arrow_keys_tell_the_values_that_the_record_holds(visit, page, comparison):
    found = visit(page).page
    viewer = found.locator(".viewer").first
    canvas = viewer.locator("canvas[tabindex]").first
    canvas.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        found.keyboard.press(key)
    told = viewer.locator(".readout").inner_text()
    value = float(comparison.attributions["integrated_gradients"].heat[0, 2, 1])
    assert "integrated_gradients, sample 0, row 2, column 1:" in told
    assert float(told.split(": ")[1].split(" ")[0]) == pytest.approx(value, rel=0.02, abs=1e-5)
    canvas.hover()
    assert "row 13, column 13" in viewer.locator(".readout").inner_text()


def test_tokens_are_text_whose_sign_is_underlined(visit, page):
    tokens = visit(page).page.locator(".tokens").first
    assert EVIL in tokens.inner_text()
    assert tokens.locator(".token").count() == 4
    negative = int((made.token_attribution(words=["a", "b", "c", "d"]).heat[0] < 0).sum())
    assert tokens.locator(".minus").count() == negative


def test_a_layer_opens_as_a_curve_with_what_is_wrong_with_it(visit, page):
    viewer = visit(page).page.locator(".viewer[data-kind=layers]")
    assert viewer.locator(".detail canvas").count() == 0
    viewer.get_by_label("Layer", exact=True).select_option("2")
    assert "out: rms of grad" in viewer.locator(".detail").inner_text()
    assert f"Since step 38: not a number {EVIL}" in viewer.locator(".detail").inner_text()
    viewer.locator(".board canvas").focus()
    assert f"{'blocks.0'}, step 0: +0.1" in viewer.locator(".readout").inner_text()
    assert "log scale" in viewer.locator(".foot").inner_text()


def test_a_scale_that_all_share_is_that_of_the_methods_and_not_of_a_control(visit, tmp_path):
    loud = made.comparison_of(
        lambda seed: made.image_attribution(n=2, method="m") if seed < 3 else times(made.image_attribution(n=2), 1e3)
    )
    viewer = visit(report(tmp_path / "loud.html", loud)).page.locator(".viewer").first
    viewer.get_by_label("Sample", exact=True).select_option("all")
    viewer.get_by_label("Scale", exact=True).select_option("shared")
    viewer.get_by_label("Clip at percentile", exact=True).fill("100")
    assert limit(viewer) == pytest.approx(float(loud.attributions["saliency"].heat.abs().max()), rel=0.01)


def test_what_the_colours_mean_is_said_and_bars_tell_what_a_sample_has_there(visit, page):
    viewers = visit(page).page.locator(".viewer[data-kind=heat]")
    assert viewers.first.locator(".legend").inner_text().split() == ["against", "for"]
    assert " = " in viewers.last.locator(".bars .what").first.inner_text()


def test_the_scale_of_attention_is_changed_in_the_page(visit, page):
    viewer = visit(page).page.locator(".viewer[data-kind=attention]")
    drawn = "document.querySelector('.head canvas').toDataURL()"
    before, told = viewer.evaluate(drawn), viewer.locator(".legend").inner_text().split()
    viewer.get_by_label("Scale", exact=True).select_option("head")
    assert viewer.evaluate(drawn) != before
    assert told == ["0", "1"]
    assert float(viewer.locator(".legend").inner_text().split()[1]) < 1


def times(attribution, factor):
    return replace(attribution, values=attribution.values * factor)


def test_attention_shows_any_head_and_where_a_position_looks(visit, page):
    store = attention()
    viewer = visit(page).page.locator(".viewer[data-kind=attention]")
    viewer.locator(".thumb").nth(5).wait_for()
    assert viewer.locator(".thumb").count() == 2 * 3
    viewer.get_by_role("button", name="encoder.1.attn, head 2").click()
    assert viewer.locator(".head h3").inner_text() == "encoder.1.attn, head 2, sample 0"
    viewer.locator(".head canvas").focus()
    told = float(viewer.locator(".readout").inner_text().split(" with ")[1].split(";")[0])
    assert told == pytest.approx(float(store["encoder.1.attn"].attention[0, 2, 0, 0]), rel=0.05)


def test_everything_is_reached_by_keyboard(visit, page):
    found = visit(page).page
    found.keyboard.press("Tab")
    assert found.evaluate("document.activeElement.textContent") == "Skip to the content"
    reachable = "a[href], select, input, button, summary, [tabindex='0']"
    kinds = set()
    for _ in range(60):
        found.keyboard.press("Tab")
        assert found.evaluate(f"document.activeElement.matches(`{reachable}`)")
        kinds.add(found.evaluate("document.activeElement.tagName"))
    assert {"A", "SELECT", "INPUT", "CANVAS", "SUMMARY"} <= kinds


def test_in_print_everything_is_unfolded_and_nothing_moves(visit, page):
    found = visit(page).page
    found.emulate_media(media="print")
    found.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert found.locator("details:not([open])").count() == 0
    assert not found.locator("nav").is_visible()
    found.evaluate("dispatchEvent(new Event('afterprint'))")
    assert found.locator("details:not([open])").count() > 0


def test_no_table_is_cut_off_in_print(visit, tmp_path):
    shown = made.images_compared()
    about = {"kind": "faithfulness", "better": "low", "range": "the output's", "paper": "Petsiuk", "doc": "Output. " * 40}
    shown = replace(shown, scores=replace(shown.scores, about=dict.fromkeys(shown.scores.metrics, about)))
    found = visit(report(tmp_path / "wide.html", shown), viewport={"width": 700, "height": 900}).page
    found.emulate_media(media="print")
    found.evaluate("dispatchEvent(new Event('beforeprint'))")
    wide = "tables => tables.filter(t => t.getBoundingClientRect().right > innerWidth + 1).map(t => t.ariaLabel)"
    assert found.locator("table").evaluate_all(wide) == []


def test_in_a_notebooks_frame_the_pickers_and_the_contents_work(visit, page, tmp_path):
    host = tmp_path / "notebook.html"
    host.write_text(f"<!doctype html><html data-ready><body>{page._repr_html_()}</body></html>")
    seen = visit(host)
    frame = seen.page.frame_locator("iframe")
    frame.locator("html[data-ready]").wait_for(state="attached")
    frame.locator(".viewer").first.get_by_label("Sample", exact=True).select_option("1")
    frame.locator("nav a").nth(3).click()
    assert frame.locator("h1").inner_text() == EVIL  # a plain "#id" would have loaded the notebook in here
    assert seen.complaints == []


def test_a_private_page_has_nothing_to_pick(visit, comparison, tmp_path):
    found = visit(report(tmp_path / "private.html", comparison, attention(), private=True)).page
    assert found.locator(".viewer").count() == 0


def shot(viewer):
    return (
        viewer.locator("canvas").first.evaluate("c => c.toDataURL()")
        + viewer.locator(".panels").inner_text()
        + str(viewer.locator("canvas").last.evaluate("c => c.toDataURL()"))
    )


def limit(viewer):
    return float(viewer.locator(".panel small").first.inner_text().strip("±").split(",")[0])


def brightness(colour):
    return sum(map(float, colour.strip("rgba()").split(",")[:3]))
