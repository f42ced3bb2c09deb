"""The view of a run at the terminal: it fits, findings come first, and layers that matter have a line."""

import io

import numpy as np
import pytest

from inspector import Finding, History
from inspector.records.stats import Series, Stats

pytest.importorskip("rich")

from inspector import watching


def made(layers=40, steps=50, findings=()):
    series = [Series(kind, f"blocks.{i}.{'x' * 40}", "rms") for kind in ("output", "param_grad") for i in range(layers)]
    values = np.ones((steps, len(series)), dtype=np.float32)
    values[:, 7] = np.logspace(0, 6, steps)
    values[-1, 3] = np.nan
    loss = (np.arange(steps), np.linspace(2, 1, steps))
    stats = Stats.dense(np.arange(1, steps + 1), series, values, np.ones(values.shape, dtype=bool))
    return History("step", {"loss": loss}, stats, list(findings))


def lines(history, width, height):
    from rich.console import Console

    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(watching.view(history, width=width, height=height - 1))
    return console.export_text().splitlines()


FOUND = Finding("nan", "blocks.3", 50, 1.0, 0.0, "the output has NaN or Inf", "Look for a division.")


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (110, 40), (200, 60)])
@pytest.mark.parametrize("findings", [0, 1, 3])
def test_the_view_fits_the_terminal(width, height, findings):
    shown = lines(made(findings=[FOUND] * findings), width, height)
    assert max(map(len, shown)) <= width
    assert len(shown) <= height


def test_findings_come_first_and_then_the_layers_that_moved():
    shown = lines(made(findings=[FOUND]), 110, 30)
    assert "▲ nan blocks.3, since step 50" in shown[1]
    table = [line for line in shown if "blocks." in line and "rms" in line]
    assert any("nan" in line and "·" in line for line in table)
    assert any("1e+06" in line and "▁" in line and "█" in line for line in table)


def test_an_empty_run_and_names_that_move_the_cursor_are_shown():
    assert any("Nothing found wrong" in line for line in lines(History(), 80, 24))
    evil = History("step", {"\x1b[2Jloss[bold]": (np.array([1]), np.array([1.0]))}, findings=[FOUND])
    text = "\n".join(lines(evil, 80, 24))
    assert "\x1b" not in text
    assert "loss[bold]" in text


def test_of_steps_that_share_a_character_the_largest_shows():
    assert watching.sparkline([0.0] * 50 + [9.0] + [0.0] * 49, 10) == "▁▁▁▁▁█▁▁▁▁"
    assert watching.sparkline([1.0, float("nan")], 10) == "▁·"
    assert watching.sparkline([], 10) == ""
    assert watching.sparkline([1e-9, 1.0, 1e9], log=True) == "▁▅█"


def test_a_run_that_goes_on_says_when_it_was_last_heard_of():
    for seconds, text in ((3.0, "3 s ago"), (600.0, "10 min ago"), (1e6, "12 days ago")):
        assert f"last heard of {text}" in watching._head(made(), seconds).plain
    ended = made()
    ended.meta["cost"] = 0.02
    assert "last heard" not in watching._head(ended, 3.0).plain


def test_on_a_log_course_a_zero_stands_at_the_foot_and_hides_nothing():
    assert watching.sparkline([1.0, 0.1, 0.01, 0.0], log=True) == "█▆▃▁"
