"""The picture, asked through matplotlib's own objects: what is drawn, where, under which name."""

import ast
import doctest
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from range_tests import REAL, probes

from keras_lr import plotting
from keras_lr.plotting import plot_range_test, save_range_test_plot
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.suggestion import NoSuggestion

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def golden(noise=0.0, seed=0, steps=100):
    """Plateau at 2.3, steepest at 3.0e-3, lowest at 0.3, blow-up behind it."""
    rates = 1e-7 * 1e8 ** (np.arange(steps) / steps)
    x = np.log10(rates)
    losses = 2.3 - 1.6 / (1 + np.exp(-3 * (x + 2.5))) + 0.02 * np.exp(6 * np.minimum(x + 0.2, 1.2))
    return rates, losses + noise * np.random.default_rng(seed).normal(size=steps)


def axes_of(panels):
    return tuple(Figure(figsize=(7, 6)).subplots(panels, 1).flat)


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def shade(ax):
    """Left end of the shaded, diverging part, or None."""
    for patch in ax.patches:
        if patch.get_label() == "diverges":
            return patch.get_x()
    return None


def test_plot_draws_loss_and_slope_on_one_logarithmic_rate_axis():
    loss, slope = plot_range_test(RangeTest(*golden()))
    assert loss.get_xscale() == slope.get_xscale() == "log"
    assert loss.get_xlim() == slope.get_xlim()
    assert slope.get_xlabel() == "Learning rate (log scale)"
    assert loss.get_ylabel() == "Batch loss"


def test_plot_shows_the_losses_it_was_given_as_points():
    rates, losses = golden(noise=0.05)
    loss = plot_range_test(RangeTest(rates, losses), slope=False)
    points = loss.lines[0]
    np.testing.assert_array_equal(points.get_xdata(), rates)
    np.testing.assert_array_equal(points.get_ydata(), losses)
    assert "batch loss" not in labels(
        plot_range_test(RangeTest(rates, losses), slope=False, raw=False)
    )


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_plot_marks_the_suggestion_where_the_rule_put_it_and_names_its_value():
    test = RangeTest(*golden(noise=0.05))
    found = test.suggest()
    loss, slope = plot_range_test(test)
    for ax in (loss, slope):
        assert any(np.array_equal(line.get_xdata(), [found.learning_rate] * 2) for line in ax.lines)
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]
        assert any(np.allclose(span, (found.low, found.high), rtol=1e-9, atol=0) for span in spans)
    (name,) = texts(loss)
    shown, rule = name.split(" ")
    assert float(shown) == pytest.approx(found.learning_rate, rel=0.05)
    assert rule == "(auto)"
    assert shown in loss.get_title(loc="left")


def test_plot_names_the_rule_that_suggested():
    loss = plot_range_test(RangeTest(*golden()), method="valley", slope=False)
    assert texts(loss)[0].endswith("(valley)")


def test_plot_without_suggestion_marks_none():
    loss = plot_range_test(RangeTest(*golden()), suggestion=False, slope=False)
    assert texts(loss) == []
    assert loss.get_title(loc="left") == "Learning-rate range test"


def test_plot_of_a_flat_curve_is_drawn_and_says_that_there_is_no_suggestion():
    rates, _ = golden()
    test = RangeTest(rates, np.full(100, 2.3))
    with pytest.raises(NoSuggestion):
        test.suggest()
    loss, slope = plot_range_test(test)
    assert "no suggestion" in loss.get_title(loc="left")
    assert texts(loss) == []


def test_plot_shades_only_the_part_that_diverges():
    rates, losses = golden()
    edge = shade(plot_range_test(RangeTest(rates, losses), slope=False))
    assert 1.5 < edge < 3.5  # a quarter of the fall is lost again at 2.0
    calm = rates < 0.3
    assert shade(plot_range_test(RangeTest(rates[calm], losses[calm]), slope=False)) is None


def test_plot_shades_the_end_of_a_run_that_stopped_at_nan():
    rates, losses = golden()
    calm = rates < 0.3
    test = RangeTest(rates[calm], losses[calm])
    test.stop_reason = "non_finite"
    assert shade(plot_range_test(test, slope=False)) == pytest.approx(rates[calm][-1])


@pytest.mark.parametrize("blow_up", [1e2, 1e8, 1e30])
def test_plot_keeps_the_valley_in_view_when_the_loss_blows_up(blow_up):
    rates, losses = golden(noise=0.05)
    losses[-4:] = [9.0, 60.0, 1e2, blow_up]
    low, high = plot_range_test(RangeTest(rates, losses), slope=False).get_ylim()
    assert low < 0.75 and 2.3 < high < 4.0


def test_plot_keeps_the_valley_in_view_when_one_early_batch_is_an_outlier():
    rates, losses = golden(noise=0.05)
    losses[20] = 400.0
    _, high = plot_range_test(RangeTest(rates, losses), slope=False).get_ylim()
    assert high < 4.0


def test_plot_serves_losses_below_zero():
    rates, losses = golden(noise=0.05)
    low, high = plot_range_test(RangeTest(rates, losses - 10), slope=False).get_ylim()
    assert low < -9.25 and -7.7 < high < -6.0


def test_plot_draws_repeats_that_ended_at_different_steps():
    rates, _ = golden()
    rows = np.array([golden(noise=0.1, seed=seed)[1] for seed in range(3)])
    rows[1, 95:] = np.nan
    rows[2, 92:] = np.nan
    loss = plot_range_test(RangeTest(rates, rows), slope=False)
    assert {"each repeat, smoothed", "median of 3 repeats"} <= set(labels(loss))


@pytest.mark.parametrize("recorded", [0, 1, 2, 3])
def test_plot_of_a_run_that_broke_off_at_once_is_drawn(tmp_path, recorded):
    test = RangeTest(np.geomspace(1e-5, 1.0, 9)[:recorded], [2.0, 1.5, 1.0][:recorded])
    test.stop_reason = "non_finite"
    save_range_test_plot(test, tmp_path / "curve.png", ramp=True)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    title = plot_range_test(test, slope=False).get_title(loc="left")
    assert title == "Learning-rate range test: the curve supports no suggestion"


def test_plot_of_losses_that_are_all_nan_is_drawn():
    loss, slope = plot_range_test(RangeTest(np.geomspace(1e-5, 1.0, 9), np.full(9, np.nan)))
    assert shade(loss) is None


def drawn(ax, label):
    """x and y of what the legend calls so."""
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


@pytest.mark.parametrize("name", REAL)
def test_line_lies_within_the_neighbouring_losses_up_to_the_divergence(name):
    test = RangeTest(**REAL[name])
    loss = plot_range_test(test, slope=False)
    rates, line = drawn(loss, "smoothed")
    before = int(np.sum(rates < shade(loss)))
    assert before > 60  # of 100 steps; all of these curves blow up near the end
    for step in range(before):
        near = test.losses[max(0, step - 3) : step + 4]
        assert near.min() <= line[step] <= near.max(), (step, rates[step])


@pytest.mark.parametrize("blow_up", [3.0, 1e3, 1e30])
def test_a_blow_up_does_not_bend_the_line_before_it(blow_up):
    rates = np.geomspace(1e-6, 1.0, 100)
    losses = np.interp(np.arange(100), [0, 30, 80], [2.0, 2.0, 0.5])
    losses[80:] = blow_up
    line = drawn(plot_range_test(RangeTest(rates, losses))[0], "smoothed")[1]
    # A steady fall of 0.03 a step: the line may lag by the 3 steps of its window.
    np.testing.assert_allclose(line[:80], losses[:80], rtol=0, atol=3 * 0.03)
    assert line[80] > 2.0


def test_line_does_not_lag_on_a_slope_and_shows_the_bottom_of_a_valley():
    rates = np.geomspace(1e-6, 1.0, 100)
    losses = 1 + np.abs(np.arange(100) - 60) / 50
    line = drawn(plot_range_test(RangeTest(rates, losses), slope=False), "smoothed")[1]
    np.testing.assert_allclose(line[10:50], losses[10:50], rtol=1e-5)
    assert np.argmin(line) == 60 and line[60] - 1 < 3 / 50


@pytest.mark.parametrize("name", REAL)
def test_line_that_has_left_the_picture_does_not_come_back(name):
    loss = plot_range_test(RangeTest(**REAL[name]), slope=False)
    line = drawn(loss, "smoothed")[1]
    gone = int(np.argmax(line > loss.get_ylim()[1]))  # 0 if it never leaves
    assert gone and np.isnan(line[gone + 1 :]).all()


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
@pytest.mark.parametrize("name", ["Adam, digits with batch normalization", "SGD, four clusters"])
def test_landmarks_that_the_reason_names_are_circles_on_the_average_that_it_read(name):
    test = RangeTest(**REAL[name])
    reason = test.suggest().reason
    loss = plot_range_test(test, slope=False)
    rates, heights = drawn(loss, "halfway down, lowest, halfway up")
    assert [f"{rate:.2g}" for rate in rates] == [
        reason.split(words)[1].split()[0].rstrip(";,")
        for words in ("halfway at ", "lowest at ", "back up at ")
    ]
    steps, average = drawn(loss, "average over 0.7 decades to each side")
    at = [int(np.abs(np.log(steps / rate)).argmin()) for rate in rates]
    top = max(loss.get_ylim())
    np.testing.assert_allclose(heights, np.minimum(average[at], heights.max()), rtol=1e-5)
    # The words hold for the drawn average: half of the fall is done at the first, nearly all of
    # it at the second, where the loss is lowest, and half is lost again at the third.
    lowest, start = np.nanmin(average), np.median(test.losses[: len(steps) // 8])
    halfway = (lowest + start) / 2
    assert average[at[0] - 1] > halfway >= average[at[0]]
    assert average[at[1]] - lowest <= 0.05 * (start - lowest)
    assert average[at[2] - 1] <= halfway < average[at[2]] and heights.max() < top


def test_labels_of_a_narrow_axis_of_rates_leave_each_other_room():
    for low, high in [(0.015, 0.47), (2e-3, 9e-3), (1e-3, 1e-2), (3e-4, 0.02), (0.11, 0.19)]:
        test = RangeTest(np.geomspace(low, high, 40), 1 + np.linspace(0, 1, 40) ** 2)
        figure = Figure(figsize=(7, 4))
        loss = plot_range_test(test, figure.add_subplot(), suggestion=False)
        figure.canvas.draw()
        texts = [t for t in loss.get_xticklabels(which="both") if t.get_text() and t.get_visible()]
        inside = [t for t in texts if low <= t.get_position()[0] <= high]
        boxes = sorted((t.get_window_extent() for t in inside), key=lambda box: box.x0)
        assert len(boxes) >= 2
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes)), (low, high)


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_no_landmarks_are_drawn_for_a_rule_that_names_none():
    loss = plot_range_test(RangeTest(*golden()), method="valley", slope=False)
    assert "halfway down, lowest, halfway up" not in labels(loss)


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_reason_says_that_a_loss_did_not_come_back_up():
    rates, losses = golden()
    calm = rates < 0.3
    test = RangeTest(rates[calm], losses[calm])
    assert "not yet halfway back up" in test.suggest("curve").reason
    loss = plot_range_test(test, method="curve", slope=False)
    assert "halfway down, lowest" in labels(loss)
    assert "not yet" not in RangeTest(rates, losses).suggest("curve").reason


def with_probes(**changes):
    test = RangeTest(*golden(noise=0.05))
    test.probes = probes(**changes)
    return test


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_short_runs_are_points_at_their_held_out_loss_inside_the_frame():
    loss = plot_range_test(with_probes(), slope=False, method="curve")
    assert drawn(loss, "held-out loss, 100 steps")[1].tolist() == [0.9, 2.9]
    assert drawn(loss, "held-out loss, 200 steps")[1].tolist() == [0.4, 0.35]
    low, high = loss.get_ylim()
    assert low < 0.35 and 2.9 < high
    left, right = loss.get_xlim()
    assert left < 1e-2 and 30.0 < right  # the ramp ends at 8.3
    assert loss.get_ylabel() == "Loss"


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_start_of_the_short_runs_is_a_thin_line():
    loss = plot_range_test(with_probes(), slope=False, method="curve")
    assert set(drawn(loss, "held-out loss at the start")[1]) == {2.2}
    (line,) = [each for each in loss.lines if each.get_label() == "held-out loss at the start"]
    assert line.get_linewidth() <= 1


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
@pytest.mark.parametrize("lost", [np.inf, 1e4])
def test_short_run_that_was_cut_off_or_is_far_above_is_a_cross_inside_the_top_edge(lost):
    test = with_probes(losses=[0.9, 2.9, lost, 0.4, 0.35])
    loss = plot_range_test(test, slope=False, method="curve")
    rates, heights = drawn(loss, "diverged")
    assert rates.tolist() == [30.0]
    assert 0.9 < heights[0] < 1.0  # of the height of the axes
    assert loss.get_ylim()[1] < 5
    name = next(text for text in loss.texts if "curve" in text.get_text())
    figure = loss.figure
    figure.canvas.draw()
    cross = loss.transAxes.transform((0, heights[0]))[1] - 4 * figure.dpi / 72
    assert name.get_window_extent().y1 <= cross + 1


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_test_without_a_ramp_shows_the_short_runs_alone(tmp_path):
    test = RangeTest([], [])
    test.probes = probes()
    loss = plot_range_test(test)  # one panel
    assert len(drawn(loss, "held-out loss, 100 steps")[0]) == 2
    assert "smoothed" not in labels(loss) and "batch loss" not in labels(loss)
    save_range_test_plot(test, tmp_path / "p.png")


def test_title_names_the_planned_run(monkeypatch):
    asked = []

    def suggest(self, method="auto", **planned):
        asked.append(planned)
        found = SimpleNamespace(learning_rate=3e-3, low=1e-3, high=1e-2, method=method)
        found.landmarks, found.run = (), "one-cycle, 10,000 updates"
        return found

    monkeypatch.setattr(RangeTest, "suggest", suggest)
    loss = plot_range_test(
        RangeTest(*golden()), slope=False, policy="one-cycle", total_steps=10_000
    )
    assert loss.get_title(loc="left") == (
        "Learning-rate range test: 3.0e-3 for one-cycle, 10,000 updates"
    )
    assert "interval 1.0e-3 to 1.0e-2" in labels(loss)
    assert asked == [{"policy": "one-cycle", "total_steps": 10_000}]
    plot_range_test(RangeTest(*golden()), slope=False)
    assert asked[1] == {"policy": None, "total_steps": None}


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_the_whole_interval_is_in_the_picture():
    rates, losses = golden()
    narrow = RangeTest(rates[50:90], losses[50:90])
    loss = plot_range_test(narrow, slope=False)
    found = narrow.suggest()
    left, right = loss.get_xlim()
    assert left <= found.low and found.high <= right


def test_slope_is_that_of_the_line_and_ends_at_the_divergence():
    rates = np.geomspace(1e-6, 1.0, 100)
    losses = 5 - 0.2 * np.log(rates / rates[0])
    slope = plot_range_test(RangeTest(rates, losses))[1].lines[1].get_ydata()
    np.testing.assert_allclose(slope[10:90], -0.2, rtol=1e-5)
    losses[80:] = 50.0
    slope = plot_range_test(RangeTest(rates, losses))[1].lines[1].get_ydata()
    assert np.isfinite(slope[:80]).all() and np.isnan(slope[80:]).all()
    assert (slope[:80] < 0).all()


def test_plot_draws_the_validation_loss_of_the_ramp():
    rates, losses = golden(noise=0.05)
    test = RangeTest(rates, losses)
    test.validation = {"learning_rates": rates[4::5], "loss": losses[4::5] + 0.1}
    loss = plot_range_test(test, slope=False)
    assert "validation loss" in labels(loss)


def test_plot_shows_the_ramp_on_request_against_the_step():
    rates, losses = golden()
    *_, ramp = plot_range_test(RangeTest(rates, losses), ramp=True)
    np.testing.assert_array_equal(ramp.lines[0].get_xdata(), np.arange(100))
    np.testing.assert_array_equal(ramp.lines[0].get_ydata(), rates)
    assert ramp.get_yscale() == "log"
    assert ramp.get_xlabel() == "Step (optimizer updates)"


def test_plot_of_a_linear_ramp_has_a_linear_ramp_panel():
    rates = np.linspace(1e-3, 1.0, 60)
    *_, ramp = plot_range_test(RangeTest(rates, 1 / (1 + rates)), ramp=True)
    assert ramp.get_yscale() == "linear"


def test_plot_draws_the_loss_alone_into_one_axes_and_returns_it():
    figure, (left, right) = plt.subplots(1, 2)
    right.plot([1, 2], [3, 4])
    assert plot_range_test(RangeTest(*golden()), left) is left
    assert figure.axes == [left, right]
    assert len(right.lines) == 1


def test_plot_fills_a_sequence_of_axes_in_order():
    axes = axes_of(3)
    drawn = plot_range_test(RangeTest(*golden()), axes, ramp=True)
    assert drawn == axes
    assert [bool(ax.lines) for ax in axes] == [True, True, True]
    assert plot_range_test(RangeTest(*golden()), np.array(axes_of(2)))[1].lines


def test_plot_refuses_more_axes_than_panels():
    with pytest.raises(ValueError, match=r"1 to 2 axes, one for each panel \(loss, slope\); got 3"):
        plot_range_test(RangeTest(*golden()), axes_of(3))
    with pytest.raises(ValueError, match="got 0"):
        plot_range_test(RangeTest(*golden()), [])


@pytest.mark.parametrize("size", [(7.0, 5.4), (4.0, 3.0), (3.0, 2.4)])
def test_plot_covers_no_data_with_legend_or_title(size):
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    rows = np.array([golden(noise=0.1, seed=seed)[1] for seed in range(3)])
    test = RangeTest(golden()[0], rows)
    test.validation = {"learning_rates": golden()[0][::5], "loss": golden()[1][::5]}
    plot_range_test(test, ax)
    figure.canvas.draw()
    inside, legend = ax.get_window_extent(), ax.get_legend().get_window_extent()
    title = ax.title if ax.title.get_text() else ax._left_title
    assert legend.y0 >= inside.y1 - 1
    assert title.get_window_extent().y0 >= legend.y1 - 3
    assert legend.x1 <= figure.bbox.x1 + 1


def test_plot_never_shows_and_never_switches_the_backend(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("the plot was shown"))
    before = plt.get_backend()
    plot_range_test(RangeTest(*golden()))
    assert plt.get_backend() == before


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_save_writes_the_format_that_the_name_says(tmp_path, ending):
    path = tmp_path / f"curve.{ending}"
    save_range_test_plot(RangeTest(*golden()), path)
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(begins)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_save_refuses_an_unknown_format_and_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"got 'curve.doc'\. The formats are: .*png"):
        save_range_test_plot(RangeTest(*golden()), tmp_path / "curve.doc")
    assert not list(tmp_path.iterdir())


def test_save_leaves_the_old_picture_when_drawing_fails(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise RuntimeError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        save_range_test_plot(RangeTest(*golden()), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_save_makes_no_pyplot_figure(tmp_path):
    before = plt.get_fignums()
    save_range_test_plot(RangeTest(*golden()), tmp_path / "curve.png")
    assert plt.get_fignums() == before


MODULES = sorted(Path(plotting.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.name)
def test_plotting_imports_matplotlib_only_where_it_draws(file):
    # sys.modules cannot tell: Keras imports matplotlib itself.
    body = ast.parse(file.read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert imports
    assert "matplotlib" not in " ".join(ast.unparse(node) for node in imports)


@pytest.mark.parametrize("module", ["range_test", "rate_search"])
def test_examples_in_the_documentation_are_true(module):
    failed, count = doctest.testmod(sys.modules[f"keras_lr.plotting.{module}"])
    assert not failed and count
