"""Records in a notebook: bounded, escaped, and saying what the plain text says."""

import re
from html import unescape
from html.parser import HTMLParser

import made_records as made
import pytest
import torch

from inspector import METHODS, METRICS
from inspector.records import Coverage, History, Status, Store, Task
from inspector.records.html import ROWS, as_html

RECORDS = {
    "assessment": made.assessment,
    "attribution": made.image_attribution,
    "comparison": made.images_compared,
    "scores": lambda: made.images_compared().scores,
    "curve": lambda: made.images_compared().curves["random"]["deletion"],
    "history": made.history,
    "finding": lambda: made.history().findings[0],
    "stats": lambda: made.history().stats,
    "store": made.store,
    "call": lambda: made.store()["features.1.conv"],
    "coverage": lambda: made.store().coverage,
    "samples": lambda: made.image_attribution().samples,
    "summary": made.summarized,
    "task": lambda: Task(made.image_attribution().samples, made.image_attribution(n=2).samples, "digits", "about them"),
}
HOSTILE = "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.seen, self.cells = set(), 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen |= {tag, *(name for name, _ in attrs)}
        self.cells += tag == "tr"


@pytest.mark.parametrize("name", RECORDS)
def test_every_noun_shows_itself_in_a_notebook_without_script_or_network(name):
    page = RECORDS[name]()._repr_html_()
    assert Tags(page).seen <= {"table", "thead", "tbody", "tr", "th", "td", "div", "style", "scope"}
    assert "http" not in page


@pytest.mark.parametrize("name", ["assessment", "comparison", "scores", "store", "coverage"])
def test_the_page_says_every_word_of_the_plain_text(name):
    record = RECORDS[name]()
    words = re.findall(r"\S+", re.sub(r"(?m)^[- ]+$", "", repr(record)))
    page = unescape(re.sub(r"<[^>]*>", " ", record._repr_html_()))
    assert [word for word in words if word not in page] == []


def test_hostile_names_stay_text():
    coverage = Coverage({HOSTILE: Status(HOSTILE, 0, HOSTILE)})
    for page in (coverage._repr_html_(), as_html(HOSTILE)):
        assert "<script" not in page
        assert "<img" not in page


def test_long_records_are_bounded_and_say_so():
    coverage = Coverage({f"layer{i}": Status("Linear", 1) for i in range(1000)})
    page = coverage._repr_html_()
    assert Tags(page).cells == ROWS + 1
    assert f"{ROWS} of 1000 rows shown" in page


def test_showing_changes_nothing_of_the_record():
    record = made.store()
    before = {name: record[name].output.clone() for name in record}
    record._repr_html_()
    assert all(torch.equal(record[name].output, before[name]) for name in record)


def test_empty_records_show_something():
    assert "empty" in Store(("output",))._repr_html_()
    assert "History" in History()._repr_html_()


@pytest.mark.parametrize("name", [name for name in RECORDS if name != "stats"])  # statistics are a part of a history
def test_every_noun_comes_back_from_disk_saying_the_same(name, tmp_path):
    record = RECORDS[name]()
    loaded = type(record).load(record.save(tmp_path / "record"))
    assert repr(loaded) == repr(record)
    assert loaded._repr_html_() == record._repr_html_()


@pytest.mark.parametrize("table", [METHODS, METRICS], ids=["methods", "metrics"])
def test_the_tables_of_methods_and_metrics_show_themselves_in_a_notebook(table):
    page = table._repr_html_()
    assert page.count("<tr>") == len(table) + 1
    assert all(name in page for name in table)
