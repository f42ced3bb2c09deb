"""The page: one file, nothing executable but its own script, hostile names inert, private pages empty of samples."""

import base64
import hashlib
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import made_records as made
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from inspector import Assessment, Curve, Finding, History, Samples, Task, capture, report, summary
from inspector.report.markup import tag

EVIL = "</script><img src=x onerror=window.PWN=1>\"'"


class Outline(HTMLParser):
    """What a browser would see: tags with attributes, and which are still open at the end."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"img", "meta", "link", "br", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def assessment(name="digits"):
    rates = {rate: torch.tensor([0.8, 0.9]) for rate in ("precision", "recall", "f1")}
    confusion = torch.tensor([[8, 2], [1, 9]])
    group = Assessment(10, 0.9, 0.9, 0.9, 0.9, rates, confusion, ("no", EVIL), name="young")
    groups, gaps = {"age": {EVIL: group, "old": group}}, {"age": {"accuracy": 0.1}}
    return Assessment(20, 0.85, 0.85, 0.85, 0.85, rates, confusion, ("no", EVIL), groups, gaps, name, {"class": "CNN"})


def history():
    steps = np.arange(4)
    finding = Finding("dead", EVIL, 3, 0.99, 0.9, "99 % never fire", "Lower the learning rate.")
    return History("epoch", {"loss": (steps, np.array([1.0, 0.5, np.nan, 0.2]))}, findings=[finding])


@pytest.fixture(scope="module")
def store():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    with capture(model, "*", what=("output", "grad")) as found:
        model(torch.rand(2, 1, 8, 8)).sum().backward()
    return found


@pytest.fixture(scope="module")
def everything(store):
    figure = Figure()
    figure.add_subplot().set_title(EVIL)
    model = nn.Sequential()
    model.add_module("<b>", nn.Linear(2, 2))
    return [
        f"# Chapter {EVIL}\n\nOne.\n\nTwo {EVIL}",
        assessment(EVIL),
        made.comparison_of(lambda seed: made.image_attribution(n=2, method=EVIL), labels=(EVIL, "random")),
        {EVIL: made.image_attribution(n=2)},
        made.token_attribution(words=[EVIL, "a", "b", "c"]),
        store,
        store["1"],
        store.coverage,
        history(),
        history().findings,
        summary(model, torch.ones(1, 2), runs=1),
        Samples(torch.rand(2, 3)),
        Task(Samples(torch.rand(4, 3), torch.tensor([0, 1, 0, 1])), Samples(torch.rand(2, 3), torch.tensor([0, 1])), EVIL),
        made.comparison_of(lambda seed: made.row_attribution()).scores,
        Curve(torch.linspace(0, 1, 5), torch.rand(2, 5)),
        torch.rand(3, 4),
        figure,
    ]


@pytest.fixture(scope="module")
def page(everything, tmp_path_factory):
    return report(tmp_path_factory.mktemp("page") / "page.html", *everything, title=f"Title {EVIL}")


def test_every_kind_of_record_has_a_section_that_the_contents_name(page):
    outline = Outline(page.read_text())
    assert outline.open == []
    ids = [section["id"] for section in outline.all("section")]
    assert len(ids) == len(set(ids)) == 17
    assert [a["href"] for a in outline.all("a") if a.get("class") != "skip"] == [f"#{name}" for name in ids]


def test_nothing_is_fetched_and_only_hashed_style_and_script_may_run(page):
    text = page.read_text()
    outline = Outline(text)
    policy = next(m["content"] for m in outline.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        sources = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        assert len(sources) == 1
        assert sources[0].isascii()  # so that its hash holds in a notebook of any encoding
        digest = base64.b64encode(hashlib.sha256(sources[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    links = [a.get(key, "") for _, a in outline.tags for key in ("src", "href", "srcset", "action")]
    assert all(link.startswith(("data:", "#")) for link in links if link)
    assert not re.search(r"https?://", text)


def test_hostile_names_are_text(page):
    outline = Outline(page.read_text())
    assert not [attributes for _, attributes in outline.tags if any(key.startswith("on") for key in attributes)]
    assert all(image["src"].startswith("data:image/png;base64,") for image in outline.all("img"))
    assert not outline.all("b")
    assert not [attributes for _, attributes in outline.tags if "style" in attributes]


def test_text_that_html_or_utf8_cannot_hold_is_replaced():
    assert tag("p", "a\x00b\ud800<", title='"') == '<p title="&quot;">a\ufffdb?&lt;</p>'


def test_every_picture_says_what_it_is_and_every_table_has_heads_and_a_name(page):
    outline = Outline(page.read_text())
    assert all(image["alt"].startswith("Picture: ") for image in outline.all("img"))
    assert {head["scope"] for head in outline.all("th")} == {"col", "row"}
    assert all(table["aria-label"] for table in outline.all("table"))
    assert outline.all("html")[0]["lang"] == "en"


def test_the_answer_is_a_path_that_shows_its_page_in_a_notebook(page):
    assert isinstance(page, Path)
    frame = Outline(page._repr_html_()).all("iframe")[0]
    assert frame["sandbox"] == "allow-scripts"
    assert frame["srcdoc"] == page.read_text()
    assert page.parent._repr_html_() is None


def test_the_same_records_make_the_same_page(tmp_path):
    pages = [report(tmp_path / name, assessment(), history()).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_a_page_is_written_anew_but_no_other_file_is_replaced(tmp_path):
    assert report(tmp_path / "new/page.html", "words") == report(tmp_path / "new/page.html", "other words")
    (tmp_path / "thesis.html").write_text("<p>years of work")
    with pytest.raises(FileExistsError, match="no page of Inspector's"):
        report(tmp_path / "thesis.html", "words")
    assert (tmp_path / "thesis.html").read_text() == "<p>years of work"
    with pytest.raises(IsADirectoryError, match=r"report\.html"):
        report(tmp_path, "words")


def test_what_cannot_be_shown_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="cannot show a int; it shows Assessment"):
        report(tmp_path / "page.html", "fine", 3)
    with pytest.raises(ValueError, match="nothing to show"):
        report(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_lists_and_dicts_are_taken_apart_and_keys_become_titles(tmp_path):
    text = report(tmp_path / "page.html", {"layer1": made.row_attribution(), "layer2": [history()]}).read_text()
    assert re.findall(r"<h2 id=\"s\d+-title\">(.*?)</h2>", text) == ["layer1", "layer2"]


def test_long_tables_say_how_much_of_them_is_shown(tmp_path):
    model = nn.Sequential(*(nn.Identity() for _ in range(1200)))
    assert "1000 of 1201 rows shown" in report(tmp_path / "page.html", summary(model)).read_text()


MARKED = 0.7310585786300049  # a value that would be recognized in any notation


def marked_records():
    image = torch.rand(2, 1, 8, 8) * MARKED
    image[0, 0, 0, 0] = MARKED  # the largest pixel, which a range would give away
    words = ["zanzibar", "quokka", "obsidian"]
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(64, 3))
    with capture(model, "*", what=("output", "input", "grad")) as store:
        model(image).sum().backward()
    attribution = made.image_attribution(n=2)
    text = made.token_attribution(words=words)
    comparison = made.comparison_of(lambda seed: made.token_attribution(words=words), labels=("a", "random"))
    settings = {"methods": {"a": {"baselines": str(torch.full((2,), MARKED))}}, "seed": 0}
    comparison = replace(comparison, settings=settings)
    baseline = replace(made.row_attribution(), baselines=torch.full((1, 18), MARKED))
    return [store, store["0"], attribution, text, comparison, baseline, Samples(image), history(), assessment()]


def test_a_private_page_holds_no_pixel_no_token_and_no_sample_value(tmp_path):
    text = report(tmp_path / "private.html", *marked_records(), made_figure(), private=True).read_text()
    for secret in ("0.731", ".7310", "zanzibar", "quokka", "obsidian"):
        assert secret not in text
    shown = [i["alt"] for i in Outline(text).all("img")]
    assert all(alt.startswith(("Picture: How well", "Picture: Training")) for alt in shown)
    assert "only aggregates" in text
    open_text = report(tmp_path / "open.html", marked_records()[0]).read_text()
    assert "0.731" in open_text  # or the test above would prove nothing


def test_a_private_page_hides_nothing_in_its_compressed_data(tmp_path):
    text = report(tmp_path / "private.html", *marked_records(), private=True).read_text()
    kinds = re.findall(r'data-kind="(\w+)"', text)
    assert set(kinds) <= {"layers"}  # statistics of a training; no maps, no inputs, no attention
    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    attribution = replace(made.image_attribution(n=1), samples=Samples(image), values=image, target=0)
    quantised = packed_bytes(report(tmp_path / "open.html", attribution).read_text())
    row = (image[0, 0, 5] / image.max() * 32766).round().short().numpy().tobytes()
    assert any(row in data for data in quantised)  # or the test below would prove nothing
    hidden = report(tmp_path / "hidden.html", attribution, {"a": Samples(image)}, made.history(), private=True).read_text()
    assert packed_bytes(hidden)
    assert not any(row in data for data in packed_bytes(hidden))


def packed_bytes(text):
    packed = re.findall(r'"bytes": ?"([A-Za-z0-9+/=]+)"', text)
    return [zlib.decompress(base64.b64decode(one)) for one in packed]


def test_a_record_without_a_picture_does_not_cost_the_page(tmp_path):
    none = replace(
        made.image_attribution(n=3), samples=made.image_attribution(n=3).samples[:0], values=torch.zeros(0, 1, 28, 28)
    )
    none = replace(none, target=torch.zeros(0, dtype=torch.long), delta=torch.zeros(0))
    text = report(tmp_path / "page.html", none, assessment()).read_text()
    assert "There is no picture: there is no sample to show" in text
    assert "How well" in text


def test_what_a_metric_is_is_told_in_words_and_not_as_code(tmp_path):
    shown = made.images_compared().scores
    doc = "(batch,) output while ``order`` positions go.\n\nx: the share, y: (batch, steps)."
    shown = replace(shown, about={"deletion": {"better": "low", "doc": doc}})
    text = report(tmp_path / "page.html", shown).read_text()
    assert "Output while order positions go." in text
    assert "steps)" not in text


def test_a_picture_is_told_to_those_who_do_not_see_it(tmp_path):
    text = report(tmp_path / "page.html", made.images_compared()).read_text()
    alt = Outline(text).all("img")[0]["alt"]
    assert "against 1 control" in alt
    assert "6 samples" in alt


def test_a_private_page_keeps_the_aggregates(tmp_path):
    comparison = made.comparison_of(lambda seed: made.image_attribution(n=4))
    text = report(tmp_path / "private.html", comparison, assessment(), history(), private=True).read_text()
    for aggregate in ("integrated_gradients", "deletion (low is better)", "85.0%", "99 % never fire"):
        assert aggregate in text


def made_figure():
    figure = Figure()
    figure.add_subplot(title="zanzibar").imshow(torch.full((4, 4), MARKED).numpy())
    return figure
