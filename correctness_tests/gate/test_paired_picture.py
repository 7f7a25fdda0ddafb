"""The picture of a paired run: what it says, and where its dots and bars are."""

from __future__ import annotations

import sys
from functools import cache
from unittest import mock

import numpy as np
import pytest

from correctness_tests.gate.paired_runs import RULES, RUNS, made_results, made_verdicts, set_facts
from xenc.gate.paired.picture import draw_paired
from xenc.gate.paired.verdicts import judge_campaign

COLORS = {
    "#1a7f37": "green", "#1f6feb": "blue", "#cf222e": "red", "#bc6a00": "orange", "#6e7781": "grey",
}  # fmt: skip


@pytest.fixture(scope="module")
def figure_of(tmp_path_factory):
    """Draws a run, once."""
    Figure = pytest.importorskip("matplotlib.figure").Figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    @cache
    def drawn(run):
        results, path = made_results(**RUNS[run]), tmp_path_factory.mktemp("pictures") / f"{run}.png"
        if run == "inconclusive":
            set_facts(results, "skewed-packed", graph_breaks=1)
        with mock.patch.object(Figure, "savefig", autospec=True, side_effect=Figure.savefig) as save:
            assert draw_paired(path, results, made_verdicts(results), RULES, "head against base")
        figure = save.call_args.args[0]
        FigureCanvasAgg(figure).draw()  # lays out texts for their boxes
        return figure

    return drawn


def texts_of(figure):
    """The texts, but for those of the axis."""
    from matplotlib.text import Text

    ticks = {tick for axes in figure.axes for tick in axes.get_xticklabels()}
    return [text for text in set(figure.findobj(Text)) - ticks if text.get_text() and text.get_visible()]


def dots_of(axes):
    """The dots of each row."""
    return [each for each in axes.collections if len(each.get_offsets()) == 5]


@pytest.mark.parametrize(
    ("run", "colors", "words"),
    [
        ("pass", {"green"}, {"GREEN: 4 PASS": 1, "PASS": 5, "head against base": 1}),
        (
            "regressed", {"green", "red"},
            # three configurations and the control that must pass
            {"NOT GREEN: seed-packed REGRESSED, +7.0% ± 1.8% wall time": 1, "+7.0% ± 1.8% wall": 1, "PASS": 4,
             "REGRESSED": 2, "as expected": 2},
        ),
        ("improved", {"green", "blue"}, {"IMPROVED": 1}),
        ("inconclusive", {"green", "orange"}, {"INCONCLUSIVE": 1, "graph breaks: 0 -> 1, ...": 1}),
        ("failed", set(), {"PASS, not REGRESSED": 1, "FAILED": 1, "NOT MEASURED": 4}),
    ],
)  # fmt: skip
def test_verdicts_are_named_and_times_have_their_colour_if_the_controls_held(figure_of, run, colors, words):
    from matplotlib.colors import to_hex

    texts = [text.get_text() for text in texts_of(figure_of(run))]
    assert {word: texts.count(word) for word in words} == words
    for axes in figure_of(run).axes:
        assert {COLORS[to_hex(each.get_facecolor()[0])] for each in dots_of(axes)} == colors | {"grey"}


@pytest.mark.parametrize("run", RUNS)
def test_no_text_lies_on_another_or_over_the_edge(figure_of, run):
    from matplotlib.text import Text

    texts, whole = texts_of(figure_of(run)), figure_of(run).bbox
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
    for number, (text, box) in enumerate(boxes):
        assert whole.x0 <= box.x0, text
        assert box.x1 <= whole.x1, text
        assert not [other for other, its in boxes[number + 1 :] if box.overlaps(its)], text


@pytest.mark.parametrize("panel", [0, 1])
def test_every_row_has_its_processes_and_their_mean_within_its_bounds_all_in_sight(figure_of, panel):
    axes = figure_of("regressed").axes[panel]
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 2]
    for y, dots in enumerate(dots_of(axes)):
        values, heights = dots.get_offsets().T
        ((low, _), (high, _)) = next(line for line in lines if (line[:, 1] == y).all())
        ((mean, _), _) = next(line for line in lines if line[0, 0] == line[1, 0] and line[0, 1] == y - 0.2)
        assert set(heights) == {y}
        assert mean == pytest.approx(100 * np.expm1(np.mean(np.log1p(values / 100))))
        left, right = axes.get_xlim()
        assert left < low < mean < high < right
        assert left < min(values) < max(values) < right
    assert y == 5  # four configurations and two controls


def test_there_is_no_picture_without_matplotlib_or_without_a_configuration(tmp_path, monkeypatch):
    results = made_results()
    assert not draw_paired(tmp_path / "none.png", results, judge_campaign(results, {}), {}, "")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw_paired(tmp_path / "none.png", results, made_verdicts(results), RULES, "")
    assert not (tmp_path / "none.png").exists()
