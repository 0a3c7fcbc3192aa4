"""The picture of a search, asked through matplotlib's own objects."""

import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from searches import BEST, RANGE_TEST, logs, searched, trained

from keras_lr.plotting import (
    plot_search,
    plot_search_curves,
    plot_search_rates,
    save_search_plot,
)
from keras_lr.rate_search.plan import Job, Outcome, Setting, Start

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curves(ax):
    """The lines of runs; marks of their ends have no line."""
    return [line for line in ax.lines if line.get_linestyle() != "None"]


def marks(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker]


def named(ax, start):
    (found,) = [line for line in ax.lines if str(line.get_label()).startswith(start)]
    return found


def runs_of(search, name):
    (found,) = [each for each in search.rounds if each.name == name]
    return found.outcomes


def fell_to(final, epochs=6):
    return list(final + np.geomspace(1.0, 0.01, epochs))


def run_of(finals):
    """A run that ends at what `finals` says of its rate; None diverges at once."""

    def run(job: Job) -> Outcome:
        final = finals(job)
        if final is None:
            return Outcome(job, "diverged", math.nan, logs([math.nan]))
        losses = fell_to(final, job.epochs)
        return Outcome(job, "finished", losses[-1], logs(losses))

    return run


def test_rates_draw_the_mean_and_the_standard_deviation_of_the_last_round():
    search = searched()
    ax = plot_search_rates(search)
    assert ax.get_xscale() == "log"
    (drawn,) = [each for each in ax.containers if isinstance(each, ErrorbarContainer)]
    line, _, (bars,) = drawn.lines
    runs = runs_of(search, "fine 2")
    rates = sorted({run.job.setting.learning_rate for run in runs})
    values = [[r.value for r in runs if r.job.setting.learning_rate == rate] for rate in rates]
    np.testing.assert_array_equal(line.get_xdata(), rates)
    np.testing.assert_allclose(
        np.array(line.get_ydata(), float), [np.mean(each) for each in values], rtol=1e-12
    )
    # Five rates; the best three raced with all three seeds, and a single run has no spread.
    assert sorted(map(len, values)) == [1, 1, 3, 3, 3]
    spreads = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments() if len(segment)]
    expected = [2 * np.std(each, ddof=1) for each in values if len(each) > 1]
    np.testing.assert_allclose([each for each in spreads if each > 0], expected, rtol=1e-9)


def test_whiskers_of_a_loss_end_at_0():
    def uneven(job):
        return 0.01 + math.log10(job.setting.learning_rate / BEST) ** 2 + 0.5 * (job.seed == 1)

    search = searched(lambda job: Outcome(job, "finished", uneven(job), logs([uneven(job)])))
    ax = plot_search_rates(search)
    (drawn,) = [each for each in ax.containers if isinstance(each, ErrorbarContainer)]
    _, _, (bars,) = drawn.lines
    assert min(segment[:, 1].min() for segment in bars.get_segments()) == 0.0
    (best,) = [s for s in search.rounds[-1].scores if s.setting == search.answer.tried]
    assert best.spread > best.mean  # so the whisker would go below 0


def test_rates_draw_a_point_for_each_seed():
    search = searched()
    points = named(plot_search_rates(search), "each seed")
    expected = {(run.job.setting.learning_rate, run.value) for run in runs_of(search, "fine 2")}
    assert set(zip(points.get_xdata(), points.get_ydata(), strict=True)) == expected
    assert len(expected) == 5 + 3 + 3  # all rates, then the best three with two more seeds


def test_rates_draw_earlier_rounds_fainter_and_say_how_much_data_they_saw():
    ax = plot_search_rates(searched())
    coarse, last = named(ax, "coarse (25 % of data)"), ax.containers[0].lines[0]
    assert coarse.get_alpha() < 1 and coarse.get_linewidth() < last.get_linewidth()
    assert coarse.get_color() != last.get_color()
    assert {"coarse (25 % of data)", "fine 1 (50 % of data)"} <= set(labels(ax))


def test_rates_shade_the_interval_and_mark_the_answer():
    search = searched()
    ax = plot_search_rates(search)
    (shade,) = ax.patches
    ends = (shade.get_x(), shade.get_x() + shade.get_width())
    np.testing.assert_allclose(ends, (search.low, search.high), rtol=1e-12)
    assert list(named(ax, "answer").get_xdata()) == [search.learning_rate] * 2
    assert f"answer {search.learning_rate:.1e}".replace("e-0", "e-") in labels(ax)


def test_rates_mark_what_the_range_test_had_suggested_on_the_same_axis():
    ax = plot_search_rates(searched(range_test=RANGE_TEST))
    line = named(ax, "range test suggests 2.0e-3")
    assert list(line.get_xdata()) == [2e-3, 2e-3]
    assert ax.get_xlim()[0] < 2e-3 < ax.get_xlim()[1]


@pytest.mark.parametrize("found", [None, {**RANGE_TEST, "suggestion": None}])
def test_rates_without_a_suggestion_of_a_range_test_mark_none(found):
    ax = plot_search_rates(searched(range_test=found))
    assert not [label for label in labels(ax) if "range test" in label]


def test_rates_mark_those_that_diverged_at_the_top_edge():
    search = searched(lambda job: trained(job, diverges_from=0.008))
    ax = plot_search_rates(search)
    marked = {float(x) for line in marks(ax, "X") for x in line.get_xdata()}
    diverged = {o.job.setting.learning_rate for o in search.outcomes if o.ended == "diverged"}
    assert marked == diverged and len(diverged) >= 3
    assert all(y > 0.9 for line in marks(ax, "X") for y in line.get_ydata())
    assert labels(ax).count("diverged") == 1


def test_rates_keep_the_valley_in_view_when_one_rate_comes_to_a_huge_loss():
    def finals(job):
        decades = math.log10(job.setting.learning_rate / BEST)
        return 5e4 if job.setting.learning_rate > 0.5 else 0.3 + 0.1 * decades**2

    search = searched(run_of(finals))
    ax = plot_search_rates(search)
    assert ax.get_ylim()[1] < 3
    (beyond,) = marks(ax, "^")[-1:]
    assert beyond.get_label() == "outside the plot"
    assert list(beyond.get_xdata()) == [1.0]


def test_rates_are_drawn_on_a_logarithmic_axis_where_losses_span_decades():
    search = searched(run_of(lambda job: (job.setting.learning_rate / BEST - 1) ** 2 / 1e3 + 1e-6))
    assert plot_search_rates(search).get_yscale() == "linear"

    def steep(job):
        decades = math.log10(job.setting.learning_rate / BEST)
        losses = [10 ** (-4 + abs(decades))] * job.epochs
        return Outcome(job, "finished", losses[-1], logs(losses))

    ax = plot_search_rates(searched(steep, points=3, fine_rounds=1))
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "Validation loss\n(log scale)"


def test_rates_of_an_objective_that_rises_have_the_worse_end_at_the_bottom():
    search = searched(objective="val_accuracy")
    ax = plot_search_rates(search)
    assert ax.get_ylabel() == "Validation accuracy\n(higher is better)"
    assert all(y < 0.1 for line in marks(ax, "X") for y in line.get_ydata())
    bottom, top = ax.get_ylim()
    best = search.answer.mean
    assert bottom < best < top and top - best < best - bottom
    np.testing.assert_allclose(max(ax.containers[0].lines[0].get_ydata()), best, rtol=1e-12)


def test_rates_name_each_variant_of_a_round_that_tries_more_than_rates():
    search = searched(also={"policy": ["constant", "one-cycle"]})
    ax = plot_search_rates(search)
    assert {"policy constant", "policy one-cycle"} <= set(labels(ax))
    rate = f"{search.learning_rate:.1e}".replace("e-0", "e-")
    assert ax.get_title(loc="left") == f"Learning-rate search: {rate}, policy one-cycle"
    lines = [named(ax, f"policy {name}") for name in ("constant", "one-cycle")]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 2


def test_rates_of_an_unfinished_search_say_so():
    ax = plot_search_rates(searched(runs=3))
    assert ax.get_title(loc="left").endswith("(not finished)")
    assert len(named(ax, "coarse").get_xdata()) == 3


def test_curves_draw_every_run_of_the_first_round_as_it_was_logged():
    search = searched()
    axes = plot_search_curves(search)
    names = [ax.get_title(loc="left") for ax in axes]
    assert names == ["Training loss", "Validation loss", "Training error", "Validation error"]
    runs = runs_of(search, "coarse")
    for ax, key in zip(axes, ("loss", "val_loss", "accuracy", "val_accuracy"), strict=True):
        assert len(curves(ax)) == len(runs) == 6
        for line, run in zip(curves(ax), runs, strict=True):
            values = np.array(run.history[key])
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(values) + 1))
            expected = 1 - values if "accuracy" in key else values
            np.testing.assert_array_equal(line.get_ydata(), expected)


def test_curves_draw_an_accuracy_as_the_error_it_leaves_and_other_metrics_as_they_are():
    axes = plot_search_curves(searched())
    assert axes[2].get_ylabel() == "Classification error\n(1 − accuracy)"

    def run(job):
        losses = fell_to(0.5, job.epochs)
        return Outcome(job, "finished", losses[-1], {"val_loss": losses, "mae": losses})

    axes = plot_search_curves(searched(run))
    assert [ax.get_ylabel() for ax in axes] == ["Loss", "Loss", "Mae", "Mae"]
    np.testing.assert_array_equal(curves(axes[2])[0].get_ydata(), fell_to(0.5, 8))

    def percent(job):
        losses = fell_to(0.5, job.epochs)
        return Outcome(job, "finished", losses[-1], {"val_loss": losses, "acc": [40, 60.0]})

    assert plot_search_curves(searched(percent))[2].get_ylabel() == "Acc"


def test_curves_without_a_second_metric_have_two_panels():
    def run(job):
        losses = fell_to(0.5, job.epochs)
        history = {"loss": losses, "val_loss": losses, "learning_rate": losses, "momentum": losses}
        return Outcome(job, "finished", losses[-1], history)

    assert len(plot_search_curves(searched(run))) == 2


def test_curves_share_their_vertical_axis_between_training_and_validation():
    search = searched(also={"policy": ["constant", "cosine"]})
    axes = plot_search_curves(search, round="policy")
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[2].get_ylim() == axes[3].get_ylim()
    ends = [
        run.history[key][-1] for run in runs_of(search, "policy") for key in ("loss", "val_loss")
    ]
    assert axes[0].get_ylim()[0] < min(ends) and max(ends) < axes[0].get_ylim()[1]


def test_curves_colour_seeds_of_a_rate_alike_and_rates_in_order_of_their_lightness():
    search = searched()
    ax, *_ = plot_search_curves(search, round="fine 2")
    colours = {}
    for line, run in zip(curves(ax), runs_of(search, "fine 2"), strict=True):
        colours.setdefault(run.job.setting.learning_rate, set()).add(line.get_color())
    assert all(len(each) == 1 for each in colours.values())
    lightness = [
        np.dot(next(iter(colours[rate]))[:3], (0.2126, 0.7152, 0.0722)) for rate in sorted(colours)
    ]
    assert len(lightness) == 5 and lightness == sorted(lightness)
    assert lightness[-1] < 0.72  # to be seen on white


def test_curves_draw_the_best_rate_thick_and_name_it():
    search = searched()
    axes = plot_search_curves(search)
    thick = [line for line in curves(axes[0]) if line.get_linewidth() > 3]
    (best,) = [o for o in runs_of(search, "coarse") if o.job.setting.learning_rate == 1e-3]
    (line,) = thick
    np.testing.assert_array_equal(line.get_ydata(), best.history["loss"])
    assert "1.0e-3 (best)" in labels(axes[1])


def test_curves_end_in_a_cross_where_they_diverged_and_in_a_square_where_they_were_stopped():
    search = searched()
    ax = plot_search_curves(search)[1]
    (cross,), (square,) = marks(ax, "X"), marks(ax, "s")
    assert list(cross.get_xdata()) == [3] and list(square.get_xdata()) == [3]
    low, high = ax.get_ylim()
    assert low < cross.get_ydata()[0] <= high  # its last loss was NaN
    assert {"1 diverged", "diverged", "stopped early"} <= set(labels(ax))


def test_curves_that_diverged_in_one_epoch_stand_beside_each_other():
    search = searched(lambda job: trained(job, diverges_from=0.008), start=Start(1e-4, 100.0, 0.1))
    ax, *_ = plot_search_curves(search)
    ax.figure.canvas.draw()
    places = [
        tuple(line.get_transform().transform(line.get_xydata())[0]) for line in marks(ax, "X")
    ]
    assert len(places) == 5
    gaps = [math.dist(a, b) for i, a in enumerate(places) for b in places[:i]]
    assert min(gaps) > 5  # pixels


def test_curves_keep_calm_runs_in_view_when_another_blows_up():
    ax = plot_search_curves(searched())[1]
    assert ax.get_ylim()[1] < 3  # one run went to 41


def test_curves_of_one_epoch_are_points():
    axes = plot_search_curves(searched(epochs=1), round="fine 2")
    assert all(line.get_marker() == "." for line in curves(axes[0]))
    assert axes[0].get_xlim() == (0.5, 1.5)


def test_curves_of_variants_differ_in_line_style_and_the_legend_names_it():
    search = searched(also={"momentum": [0.8, 0.95]}, base=Setting(1e-3, 0.9))
    axes = plot_search_curves(search, round="momentum")
    styles = {
        run.job.setting.momentum: line.get_linestyle()
        for line, run in zip(curves(axes[0]), runs_of(search, "momentum"), strict=True)
    }
    assert len(set(styles.values())) == len(styles) == 2
    assert {"momentum 0.8", "momentum 0.95"} <= set(labels(axes[1]))


def test_curves_refuse_a_round_and_a_metric_that_are_not_there():
    search = searched()
    with pytest.raises(ValueError, match=r"got 'fine 9'\. The rounds are: coarse, fine 1, fine 2"):
        plot_search_curves(search, round="fine 9")
    with pytest.raises(ValueError, match=r"got 'auc'\. The logs have: accuracy"):
        plot_search_curves(search, metric="auc")


def test_plot_of_a_search_whose_every_rate_diverged_but_one_is_drawn():
    search = searched(run_of(lambda job: 0.5 if job.setting.learning_rate < 2e-5 else None))
    axes = plot_search(search)
    assert all(np.isfinite(ax.get_ylim()).all() for ax in axes)


def test_plot_draws_the_rates_above_the_curves_and_returns_the_axes():
    axes = plot_search(searched())
    assert len(axes) == 5
    assert [bool(ax.lines) for ax in axes] == [True] * 5
    legends = [ax.get_legend() is not None for ax in axes]
    assert legends == [True, False, True, False, False]


def test_plot_fills_the_axes_it_is_given_in_order_and_adds_none():
    search = searched()
    figure = Figure(layout="constrained")
    axes = tuple(figure.subplots(3, 1))
    assert plot_search(search, axes) == axes
    assert figure.axes == list(axes)
    single = Figure().subplots()
    assert search.plot(single) is single
    with pytest.raises(ValueError, match="1 to 5 axes.*got 6"):
        plot_search(search, Figure().subplots(6, 1))


def test_plot_gives_each_figure_one_legend_of_its_own():
    figures = [Figure() for _ in range(4)]
    axes = plot_search_curves(searched(), [figure.subplots() for figure in figures])
    assert all(ax.get_legend() is not None for ax in axes)


@pytest.mark.parametrize("kind", ["healthy", "interrupted", "variants"])
def test_plot_covers_no_panel_with_a_legend_and_clips_no_label(kind):
    search = {
        "healthy": lambda: searched(range_test=RANGE_TEST),
        "interrupted": lambda: searched(runs=2),
        "variants": lambda: searched(
            also={"momentum": [0.8, 0.9, 0.95]}, base=Setting(1e-3, 0.9), range_test=RANGE_TEST
        ),
    }[kind]()
    name = "momentum" if kind == "variants" else None
    axes = plot_search(search, round=name)
    figure = axes[0].figure
    figure.canvas.draw()
    for ax in axes:
        box = ax.get_tightbbox()
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1
        if ax.get_legend() is not None:
            legend = ax.get_legend().get_window_extent()
            assert not any(legend.padded(-2).overlaps(other.get_window_extent()) for other in axes)


def test_save_writes_the_picture_without_pyplot(tmp_path):
    save_search_plot(searched(), tmp_path / "search.png", dpi=40, round="fine 1")
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match="got 'search.doc'"):
        save_search_plot(searched(), tmp_path / "search.doc")


def test_plot_leaves_the_search_as_it_was():
    search = searched()
    before = repr(dataclasses.asdict(search))
    plot_search(search)
    assert repr(dataclasses.asdict(search)) == before
