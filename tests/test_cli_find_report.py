"""`keras-lr find --report`: one HTML file with the test, the plan, the layers and what to do."""

import html
import json
import re
import shlex

import command_line
import keras
import numpy as np
import pytest
from browser import browser
from click.testing import CliRunner
from command_line import refused, run
from range_tests import FALLS, RATES, probes

import keras_lr
from keras_lr.range_test.planned_run import planned_run
from keras_lr_cli import main

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("find report")
    command_line.write_files(folder)
    return folder


@pytest.fixture
def recorded(monkeypatch):
    """Replace the run by a recorded curve with short runs; return what it is made of."""
    parts = {"learning_rates": RATES, "losses": FALLS, "probes": probes()}

    def lr_find(model, *_, **options):
        planned = planned_run(options.get("policy"), options.get("total_steps"))
        provenance = {"family": "adam", "hints": ["Scale the <inputs>."]}
        return keras_lr.RangeTest(
            **parts, training_steps=700, planned=planned, provenance=provenance
        )

    monkeypatch.setattr(keras_lr, "lr_find", lr_find)
    return parts


def report(files, tmp_path, *options):
    """The page, and the answer that was printed."""
    path = tmp_path / "find.html"
    result = run("find", files / "model.keras", "--report", path, *options)
    return path.read_text("utf-8"), result


def text(page):
    return " ".join(
        html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)).split()
    )


def table(page, heading):
    """The cells of the table in a section, by row."""
    (section,) = re.findall(rf"<h2>{heading}</h2>.*?</section>", page, re.S)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", section, re.S)
    return [[html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r)] for r in rows]


def test_the_page_has_the_answer_the_plan_the_layers_and_the_advice(files, tmp_path, recorded):
    plan = ["--policy", "one-cycle", "--total-steps", "2000"]
    page, result = report(files, tmp_path, *plan)
    rate = re.search(r"Learning rate +(\S+) +for one-cycle, 2,000 updates", result.stdout)[1]
    words = text(page)
    assert f"Learning rate {rate} for one-cycle, 2,000 updates Interval" in words
    assert "holds the best rate in about 85% of cases" in words
    assert "Warning: Scale the <inputs>." in words and "<inputs>" not in page
    assert f"callbacks=[keras_lr.OneCycle(max_lr={rate})]" in words
    assert "The planned run: one-cycle, 2,000 updates" in words
    assert "keras-lr diagnose training.csv" in words
    assert re.findall(r'<img alt="([^"]+)" src="data:image/svg\+xml;base64,', page) == [
        "Loss against the learning rate",
        "Learning rate of each update of the planned run",
    ]
    assert str(tmp_path / "find.html") in result.stdout
    made = probes()
    assert table(page, "Short runs at constant rates")[1:] == [
        [f"{rate:.3g}" + (" ★ best" if loss == 0.35 else ""), shown, str(steps)]
        for rate, loss, steps in sorted(
            zip(made.learning_rates, made.losses, made.steps, strict=True)
        )
        for shown in ["diverged" if loss == float("inf") else f"{loss:.4g}"]
    ]
    rules = table(page, "Rules of other libraries")
    assert [row[0] for row in rules[1:4]] == ["auto", "valley", "slide"]
    valley = keras_lr.RangeTest(RATES, FALLS).suggest("valley").learning_rate
    assert rules[2][1] == f"{valley:.3g}"


def test_the_layers_have_the_multipliers_of_the_file(files, tmp_path, recorded):
    names = [layer.name for layer in keras.models.load_model(files / "model.keras").layers]
    multipliers = tmp_path / "m.json"
    multipliers.write_text(json.dumps(dict(zip(names, [0.1, 1.0], strict=True))))
    page, _ = report(files, tmp_path, "--multipliers", multipliers)
    assert table(page, "Layers")[1:] == [
        [names[0], "Dense", "72", "66.7%", "yes", "0.1"],  # 8 x 8 + 8 of 108
        [names[1], "Dense", "36", "33.3%", "yes", "1"],
    ]
    assert "108 parameters, 108 of them train" in page


def test_the_commands_on_the_page_can_be_run(files, tmp_path, recorded):
    options = ["--data", files / "model.csv", "--target", "label", "--seed", "3", "--steps", "20"]
    page, _ = report(files, tmp_path, *options, "--policy", "cosine", "--batch-size", "16")
    commands = [
        shlex.split(html.unescape(line))[1:]
        for line in re.findall(r"<code>(keras-lr (?:find|search) .*?)</code>", page)
    ]
    assert [command[0] for command in commands] == ["search", "find"]
    search, find = commands
    assert search[2:] == [
        *map(str, options[:4]),
        *("--batch-size", "16", "--seed", "3", "--report", "search.html"),
    ]
    assert "--policy" in find and "--steps" in find and str(tmp_path / "find.html") in find
    for command in commands:  # it is parsed: the option after it is the one refused
        refusal = CliRunner().invoke(main, [*command, "--no-such"]).stderr
        assert "No such option" in refusal and "'--no-such'" in refusal, refusal


def test_a_search_is_not_recommended_for_one_of_several_optimizers(files, tmp_path, recorded):
    page, _ = report(files, tmp_path, "--optimizer-name", "optimizer")
    assert "Next steps" in page and "keras-lr search" not in page


def test_no_suggestion_is_reported_with_its_reason(files, tmp_path, recorded):
    recorded["losses"], recorded["probes"] = np.ones(100), None
    page, result = report(files, tmp_path)
    assert result.exit_code == 1
    assert "No learning rate can be suggested." in text(page)
    reason = result.stderr.strip().removeprefix("Error: No learning rate can be suggested. ")
    assert reason and reason in text(page)
    assert "Next steps" not in page and "Layers" in page


def test_a_report_is_refused_before_the_run_where_it_cannot_be_written(files, tmp_path, recorded):
    lines = [
        refused("find", files / "model.keras", "--report", tmp_path / "none" / "r.html"),
        refused("find", files / "model.keras", "--report", files / "model.npz"),
        refused(
            *("find", files / "model.keras", "--report", tmp_path / "r", "--save", tmp_path / "r")
        ),
    ]
    assert "does not exist" in lines[0] and "would overwrite an input" in lines[1]
    assert "name the same file" in lines[2]


def test_the_page_is_shown_by_a_browser_on_a_phone_and_in_the_dark(files, tmp_path, recorded):
    report(files, tmp_path, "--policy", "one-cycle", "--total-steps", "2000")
    with browser() as chromium:
        for width, dark in ((1200, False), (390, True)):
            chromium.open(tmp_path / "find.html", width, dark=dark)
            assert chromium.complaints() == []
            assert all(url.startswith(("file:", "data:")) for url in chromium.requests())
            shown = chromium.evaluate("[...document.images].map(i => i.naturalWidth > 0)")
            assert shown == [True, True]
            assert chromium.evaluate("document.documentElement.scrollWidth") <= width
        assert chromium.pdf().startswith(b"%PDF")
