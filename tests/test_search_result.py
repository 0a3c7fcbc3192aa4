"""A search that was saved and read again."""

import json
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from searches import RANGE_TEST, searched

import keras_lr
from keras_lr.rate_search import Search

pytestmark = pytest.mark.once


def finished():
    """A finished search of two policies, of which some runs diverged."""
    return searched(
        also={"policy": ["constant", "one-cycle"]},
        range_test={**RANGE_TEST, "losses": [2.3, 1.0, math.nan]},
        settings={"epochs": 8, "also": {"policy": ["constant", "one-cycle"]}},
        storage="digits.search.sqlite3",
        study="digits",
        provenance={"model": "digits", "settable_rate": False, "versions": {"keras": "3"}},
        fine_rounds=1,
    )


@pytest.fixture
def saved(tmp_path):
    """A file that `save` wrote, and a function that changes its content."""
    file = finished().save(tmp_path / "search.json")

    def change(edit):
        content = json.loads(file.read_text())
        edit(content)
        file.write_text(json.dumps(content))
        return file

    return change


def test_load_gives_an_equal_search(tmp_path):
    search = finished()
    assert search.answer.finished and any(o.ended == "diverged" for o in search.outcomes)
    path = tmp_path / "search.json"
    assert search.save(path) == path
    read = Search.load(path)
    assert read == search
    assert read.answer == search.answer
    for ours, theirs in zip(read.rounds, search.rounds, strict=True):
        assert (ours.name, ours.fraction, ours.spacing) == (
            theirs.name,
            theirs.fraction,
            theirs.spacing,
        )
        assert ours.jobs == theirs.jobs
        assert [repr(each) for each in ours.outcomes] == [repr(each) for each in theirs.outcomes]
    assert repr(read.range_test) == repr(search.range_test)


def test_a_loaded_search_plots_reports_and_gives_its_python(tmp_path):
    search = finished()
    read = Search.load(search.save(tmp_path / "search.json"))
    first, second = search.report(tmp_path / "a.html"), read.report(tmp_path / "b.html")
    assert second.read_bytes() == first.read_bytes()
    assert read.python() == search.python()
    assert len(read.plot(round="fine 1", metric="accuracy")) == 5
    plt.close("all")


def test_load_of_an_unfinished_search_keeps_the_jobs_that_were_left(tmp_path):
    search = searched(runs=3)
    read = Search.load(search.save(tmp_path / "search.json"))
    assert read == search and len(read.rounds[0].jobs) == 6
    assert not read.rounds[0].complete


def test_a_run_that_two_rounds_share_is_saved_once(tmp_path):
    search = searched(fraction=1.0)
    asked = sum(len(each.jobs) for each in search.rounds)
    runs = {(o.job.setting, o.job.seed) for each in search.rounds for o in each.outcomes}
    assert len(search.outcomes) == len(runs) < asked
    file = search.save(tmp_path / "search.json")
    assert len(json.loads(file.read_text())["runs"]) == len(runs)
    read = Search.load(file)
    assert read == search and all(each.complete for each in read.rounds)


def test_searches_are_equal_if_their_content_is():
    assert finished() == finished()
    assert finished() != replace(finished(), study="other")
    assert finished() != "a search"


def test_an_infinite_loss_is_saved_by_its_name(tmp_path):
    search = finished()
    history = next(o for o in search.outcomes if o.ended == "diverged").history
    history["loss"][:] = [math.inf, -math.inf, math.nan]
    file = search.save(tmp_path / "search.json")
    read = Search.load(file)
    found = next(o for o in read.outcomes if o.ended == "diverged").history["loss"]
    assert repr(found) == "[inf, -inf, nan]"
    json.loads(file.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "edit, reason",
    [
        (lambda c: c.pop("runs"), "'runs' is missing"),
        (lambda c: c["setting"].pop("policy"), "'policy' is missing"),
        (lambda c: c["setting"].update(learning_rate=-1), "learning_rate must be"),
        (lambda c: c["setting"].update(policy="step"), "policy must be 'constant'"),
        (lambda c: c["runs"][0].update(ended="lost"), "ended must be 'finished'"),
        (lambda c: c["runs"][0].update(round="fine 9"), "a run belongs to no round"),
        (lambda c: c["runs"][0]["history"].update(loss=["much"]), "could not convert"),
        (lambda c: c.update(rounds=None), "not iterable"),
        (lambda c: c.update(maximize="no"), "maximize must be True or False"),
        (lambda c: c.update(objective=3), "objective must be text"),
        (lambda c: c["range_test"].pop("losses"), "'losses' is missing"),
    ],
)
def test_load_refuses_a_damaged_search_with_the_reason(saved, edit, reason):
    with pytest.raises(ValueError, match="holds a damaged search: ") as caught:
        Search.load(saved(edit))
    message = str(caught.value)
    assert reason in message and "\n" not in message
    assert message.endswith("Repeat the search and save it again.")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format": "keras-lr range test", "version": 2}']
)
def test_load_refuses_another_file(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="is not a search saved by keras-lr. Give a file that"):
        Search.load(file)


def test_load_refuses_another_version_with_the_way_out(saved):
    with pytest.raises(ValueError, match=r"a later keras-lr \(format 99, .* Upgrade keras-lr"):
        Search.load(saved(lambda content: content.update(version=99)))
    with pytest.raises(ValueError, match=r"an earlier keras-lr \(format 1, .* Repeat the search"):
        Search.load(saved(lambda content: content.update(version=1)))


def test_load_reads_a_search_of_version_2_whose_answer_was_trained(saved):
    def old(content):
        content.update(version=2)
        for name in ("tried", "regret", "sensitivity", "lr_sensitivity"):
            content.pop(name)

    read = Search.load(saved(old))
    assert read.answer.tried == read.setting == finished().setting
    assert all(math.isnan(each) for each in (*read.regret, *read.sensitivity, read.lr_sensitivity))


def test_load_reads_what_a_rate_costs_that_diverges(saved):
    read = Search.load(saved(lambda content: content.update(sensitivity=[0.25, "inf"])))
    assert read.sensitivity == (0.25, math.inf)
    assert read.regret == finished().regret


def test_load_of_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        Search.load(tmp_path / "missing.json")


def test_setting_and_answer_are_public():
    search = finished()
    assert isinstance(search.setting, keras_lr.Setting)
    assert isinstance(search.answer, keras_lr.Answer)
