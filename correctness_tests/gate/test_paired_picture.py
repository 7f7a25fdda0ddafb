"""The picture of a paired run, by its pixels and by what it says."""

from __future__ import annotations

import sys
from functools import cache
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from correctness_tests.gate.paired_runs import RULES, RUNS, made_results, made_verdicts, set_facts
from xenc.gate.paired.picture import draw_paired
from xenc.gate.paired.rows import limits_of, rows_of
from xenc.gate.paired.verdicts import judge_campaign

COLORS = {"green": (26, 127, 55), "blue": (31, 111, 235), "red": (207, 34, 46), "orange": (188, 106, 0)}


@pytest.fixture(scope="module")
def picture_of(tmp_path_factory):
    """Draws a run, once: the texts in its picture, and which verdicts' colours are between them."""
    Figure = pytest.importorskip("matplotlib.figure").Figure

    @cache
    def picture(run):
        results, path = made_results(**RUNS[run]), tmp_path_factory.mktemp("pictures") / f"{run}.png"
        if run == "inconclusive":
            set_facts(results, "skewed-packed", graph_breaks=1)
        verdicts = made_verdicts(results)
        with mock.patch.object(Figure, "savefig", autospec=True, side_effect=Figure.savefig) as save:
            assert draw_paired(path, results, verdicts, RULES, "head against base")
        return SimpleNamespace(texts=texts_of(save.call_args.args[0]), colors=colors_of(path))

    return picture


def texts_of(figure):
    """Texts, their boxes, and the picture's own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    low, high = figure.axes[0].get_xlim()
    ticks = [tick for axes in figure.axes for tick in axes.get_xticklabels()]
    unseen = [tick for tick in ticks if not low <= tick.get_position()[0] <= high]
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    found = [text for text in found if text not in unseen]
    shown = [(text.get_text(), Text.get_window_extent(text, canvas.get_renderer())) for text in found]
    return {"whole": figure.bbox, "shown": shown, "words": [text for text, _ in shown]}


def colors_of(path):
    """More than specks of them, between the names at the left and the verdicts at the right."""
    image = (255 * pytest.importorskip("matplotlib.image").imread(path)[..., :3]).round().astype(int)
    height, width, _ = image.shape
    inner = image[int(0.11 * height) : int(0.8 * height), int(0.21 * width) : int(0.82 * width)]
    return {name for name, color in COLORS.items() if (abs(inner - color).sum(-1) < 6).sum() > 50}


SHOWN = {
    "pass": {"green"}, "regressed": {"green", "red"}, "improved": {"green", "blue"},
    "inconclusive": {"green", "orange"}, "failed": set(),
}  # fmt: skip


@pytest.mark.parametrize(("run", "colors"), SHOWN.items())
def test_times_have_the_colour_of_their_verdict_and_none_if_the_controls_failed(picture_of, run, colors):
    assert picture_of(run).colors == colors


@pytest.mark.parametrize("run", RUNS)
def test_no_text_lies_on_another_or_over_the_edge(picture_of, run):
    texts = picture_of(run).texts
    for number, (text, box) in enumerate(texts["shown"]):
        assert texts["whole"].x0 <= box.x0, text
        assert box.x1 <= texts["whole"].x1, text
        assert not [other for other, its in texts["shown"][number + 1 :] if box.overlaps(its)], text


@pytest.mark.parametrize(
    ("run", "text", "count"),
    [
        ("regressed", "NOT GREEN: seed-packed REGRESSED, 7.0% slower (wall time)", 1),
        ("regressed", "+7.0% ± 1.8% wall", 1),
        ("regressed", "PASS", 4),  # three configurations and the control that must pass
        ("regressed", "as expected", 2),
        ("regressed", "head against base", 1),
        ("failed", "PASS, not REGRESSED", 1),
        ("failed", "FAILED", 1),
        ("failed", "NOT MEASURED", 4),
        ("inconclusive", "graph breaks: 0 -> 1, ...", 1),
    ],
)
def test_the_picture_shows_verdicts_changes_and_outcomes_of_controls(picture_of, run, text, count):
    assert picture_of(run).texts["words"].count(text) == count


@pytest.mark.parametrize("channel", ["wall_s", "device_s"])
def test_the_bar_of_every_row_lies_amid_the_dots_that_it_comes_from(channel):
    results = made_results()
    rows = rows_of(results, made_verdicts(results), RULES)
    assert [row.control for row in rows] == [False] * 4 + [True] * 2
    for row in rows:
        _, processes = row.dots[channel]
        mean = np.expm1(np.mean(np.log1p(np.array(processes) / 100)))
        assert row.bounds(channel)[1] == pytest.approx(100 * mean), row.label


def test_one_wild_configuration_does_not_squeeze_the_others_together():
    results = made_results({"seed-packed": 3.0, "skewed-packed": -0.63})
    low, high = limits_of(rows_of(results, made_verdicts(results), RULES))
    assert -25 < low < -5
    assert 5 < high < 25


def test_there_is_no_picture_without_matplotlib_or_without_a_configuration(tmp_path, monkeypatch):
    results = made_results()
    assert not draw_paired(tmp_path / "none.png", results, judge_campaign(results, {}), {}, "")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw_paired(tmp_path / "none.png", results, made_verdicts(results), RULES, "")
    assert not (tmp_path / "none.png").exists()
