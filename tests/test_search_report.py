"""The report of a search: one file that a browser shows without asking anybody for anything."""

import base64
import doctest
import errno
import html
import math
import os
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from browser import browser, chromium
from searches import RANGE_TEST, searched, trained

from keras_lr.plotting._axes import short
from keras_lr.rate_search.plan import Outcome
from keras_lr.rate_search.report import write_report

pytestmark = pytest.mark.once

report = sys.modules["keras_lr.rate_search.report"]  # keras_lr.search is the function

NASTY = """<script>alert("x")</script> & 'co' $title"""
COMMAND = "keras-lr search 'my --model.keras' --data digits.npz --seed 0"


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def cells(text):
    """The tables, as lists of rows of text."""
    return [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table)
        ]
        for table in re.findall(r"<table>.*?</table>", text, re.DOTALL)
    ]


def nasty():
    """A search with markup wherever text comes from outside, and the most of everything."""
    return searched(
        also={"policy": ["constant", "one-cycle"]},
        range_test=RANGE_TEST,
        settings={"command": COMMAND, NASTY: NASTY, "also": {"policy": ["constant", NASTY]}},
        storage=f"runs/{NASTY}.db",
        study=NASTY,
        provenance={"model": NASTY, "versions": {"keras": "3.12"}, "seed": math.nan},
        fine_rounds=1,
    )


def interrupted():
    """The first three rates, one of which diverged."""
    return searched(lambda job: trained(job, diverges_from=8e-3), runs=3)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Two searches, and the files that tell of them."""
    folder = tmp_path_factory.mktemp("reports")
    searches = {"nasty": nasty(), "interrupted": interrupted()}
    return {
        name: (search, search.report(folder / f"{name}.html")) for name, search in searches.items()
    }


@pytest.fixture(scope="module")
def pages(reports):
    return {name: file.read_text(encoding="utf-8") for name, (_, file) in reports.items()}


def test_report_says_the_answer_with_its_interval_and_spread(reports, pages):
    search, _ = reports["nasty"]
    text = Page(pages["nasty"]).text
    assert f"Largest learning rate {short(search.learning_rate)}" in text
    assert "one-cycle" in text
    assert f"{short(search.low)} to {short(search.high)}" in text
    low, high = search.regret
    assert f"({low:.2g} worse at its lower end, {high:.2g} worse at its upper end)" in text
    low, high = search.sensitivity
    assert f"{low:.2g} worse at a third of the rate, {high:.2g} worse at 3 times the rate, " in text
    assert f"{search.lr_sensitivity:.2g} worse in the mean over three decades" in text
    assert f"{search.answer.mean:.4g} ± {search.answer.spread:.2g} over the seeds" in text
    assert "suggested 2.0e-3" in text


def test_report_lists_every_setting_of_every_round_and_marks_the_best(reports, pages):
    search, _ = reports["nasty"]
    tables = cells(pages["nasty"])
    assert [len(table) - 1 for table in tables] == [len(each.scores) for each in search.rounds]
    head = ["Learning rate", "Policy", "val_loss", "Spread", "Runs", "Ended", "Epochs", "Time"]
    assert all(table[0] == head for table in tables)
    rows = [row for table in tables for row in table[1:]]
    (best,) = [row for row in rows if "best" in row[0]]
    answer = search.answer
    assert best[0] == f"{short(search.answer.tried.learning_rate)} ★ best"
    assert best[1:6] == ["one-cycle", f"{answer.mean:.4g}", f"{answer.spread:.2g}", "3", "finished"]
    assert best[6:] == ["8", "4.5 s"]


def test_report_says_diverged_and_a_dash_where_there_is_no_number(pages):
    rows = [row for table in cells(pages["interrupted"]) for row in table[1:]]
    assert len(rows) == 3
    (diverged,) = [row for row in rows if "diverged" in row]
    assert diverged == ["1.0e-2", "diverged", "–", "1", "diverged", "3", "0.4 s"]
    text = Page(pages["interrupted"]).text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert "3 of 6 runs have ended" in text


def test_report_shows_what_makes_the_answer_less_sure(reports, pages):
    search, _ = reports["interrupted"]
    assert len(search.warnings) >= 2
    page = Page(pages["interrupted"])
    assert all(warning in page.text for warning in search.warnings)
    assert "coarse, not finished" in page.text


def test_report_says_how_to_do_it_again(reports, pages):
    search, _ = reports["nasty"]
    text = Page(pages["nasty"]).text
    command = "keras-lr search 'my --model.keras' \\\n    --data digits.npz \\\n    --seed 0"
    assert command in text
    assert search.python() in text
    assert "pip install optuna-dashboard" in text
    assert "optuna-dashboard 'sqlite:///runs/<script>" in text


def test_report_shows_text_from_outside_as_text(pages):
    page = Page(pages["nasty"])
    assert "script" not in page.tags
    assert page.text.count(NASTY) >= 6  # title, heading, name and value of a setting, study, model
    assert {"title", "h1"} <= set(page.tags)


def test_report_tells_the_settings_and_what_it_was_made_with(pages):
    text = Page(pages["nasty"]).text
    assert f"policy constant, {NASTY}" in text
    assert "keras 3.12" in text


def test_report_holds_its_pictures_and_refers_to_nothing_outside(reports, pages):
    for name, (search, _) in reports.items():
        page = Page(pages[name])
        images = [attributes for tag, attributes in page.attributes if tag == "img"]
        assert len(images) == 1 + 4 * sum(bool(each.outcomes) for each in search.rounds)
        for image in images:
            kind, data = image["src"].split(",", 1)
            assert kind == "data:image/svg+xml;base64"
            picture = ElementTree.fromstring(base64.b64decode(data))
            assert picture.tag.endswith("svg")
            assert image["alt"]
        sources = [
            value
            for tag, attributes in page.attributes
            for key, value in attributes.items()
            if key in ("src", "href", "srcset", "action", "data") and tag != "img"
        ]
        assert sources == []
        assert not re.search(r"https?:|url\(|@import", pages[name])


def test_report_of_the_same_search_is_the_same_file(reports, tmp_path):
    search, file = reports["interrupted"]
    assert write_report(search, tmp_path / "again.html").read_bytes() == file.read_bytes()


def test_report_of_a_search_that_says_little_is_written(tmp_path):
    search = replace(
        interrupted(), rounds=[], settings={"command": "keras-lr search --a | tee 'it"}
    )
    page = Page(search.report(tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "keras-lr search --a | tee 'it" in page.text
    assert "optuna-dashboard" not in page.text
    assert "img" in page.tags


@pytest.mark.parametrize(
    ("storage", "command"),
    [
        ("/tmp/a b.db", "optuna-dashboard 'sqlite:////tmp/a b.db'"),
        ("journal:study.log", "optuna-dashboard study.log"),
        ("postgresql://me:***@host/db", "optuna-dashboard 'postgresql://me:***@host/db'"),
        ("this process's memory", None),
        ("JournalStorage", None),
    ],
)
def test_report_tells_how_to_look_at_the_study(tmp_path, storage, command):
    search = replace(interrupted(), rounds=[], storage=storage, study="s")
    text = Page(search.report(tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert storage in text
    assert command is None or command in text
    assert ("optuna-dashboard" in text) == (command is not None)
    assert ("with the password" in text) == ("***" in storage)


def test_report_that_cannot_be_written_is_refused_before_it_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_pictures", lambda _: pytest.fail("was drawn"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        interrupted().report(tmp_path / "missing" / "report.html")


def test_report_leaves_the_old_file_when_drawing_fails(tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(report, "_pictures", fail)
    file = tmp_path / "report.html"
    file.write_text("old")
    with pytest.raises(RuntimeError, match="no fonts"):
        interrupted().report(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_report_leaves_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file = tmp_path / "report.html"
    file.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        replace(interrupted(), rounds=[]).report(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_report_of_runs_without_a_history_is_written(tmp_path):
    def run(job):
        if job.setting.learning_rate > 5e-3:
            return Outcome(job, "diverged", math.nan)
        return trained(job)

    search = searched(run, runs=3)
    text = search.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert ["1.0e-2", "diverged", "–", "1", "diverged", "0", "0.0 s"] in cells(text)[0]


def test_examples_in_the_documentation_are_true():
    failed, count = doctest.testmod(report)
    assert not failed and count


# In the page: the size of each picture as it was decoded, and what is wider than the window.
PICTURES = "[...document.images].map(i => i.complete ? i.naturalWidth * i.clientWidth : 0)"
TOO_WIDE = """[...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".scroll table, pre code"))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML)"""
ROWS = 'document.querySelectorAll("tbody tr").length'


def test_chromium_shows_the_report_on_a_phone_and_on_a_desk_and_asks_nobody(reports):
    search, file = reports["nasty"]
    with browser() as chrome:
        for width, dark in ((390, True), (1280, False)):
            chrome.open(file, width, dark=dark)
            assert chrome.evaluate("innerWidth") == width
            pictures = chrome.evaluate(PICTURES)
            assert len(pictures) == 13 and min(pictures) > 0
            assert chrome.evaluate(ROWS) == len(search.rows())
            assert chrome.evaluate("document.querySelector('h1').textContent").endswith(NASTY)
            assert chrome.evaluate(TOO_WIDE) == []
            assert chrome.evaluate("document.documentElement.scrollWidth") <= width
            colours = chrome.evaluate("getComputedStyle(document.querySelector('dt')).color")
            assert colours == ("rgb(176, 176, 176)" if dark else "rgb(92, 92, 92)")
            assert chrome.complaints() == []
            asked = [url for url in chrome.requests() if not url.startswith("data:")]
            assert asked == [file.resolve().as_uri()]
        assert chrome.pdf().startswith(b"%PDF")


def test_the_browser_tells_of_pages_that_reach_out_or_complain(tmp_path):
    file = tmp_path / "page.html"
    file.write_text('<img src="http://example.org/a.png"><script>console.error("no")</script>')
    with browser() as chrome:
        chrome.open(file, 390)
        assert "http://example.org/a.png" in chrome.requests()
        assert chrome.evaluate(PICTURES) == [0]
        assert len(chrome.complaints()) >= 2


def test_a_missing_browser_fails_where_the_environment_demands_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("KERAS_LR_REQUIRE_CHROMIUM", "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium on PATH"):
        chromium()
    monkeypatch.delenv("KERAS_LR_REQUIRE_CHROMIUM")
    with pytest.raises(pytest.skip.Exception, match="no Chromium on PATH"):
        chromium()
