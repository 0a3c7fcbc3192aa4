"""What `--json` prints is what the schemas in the package say."""

import copy
import importlib.util
import json
import math
from pathlib import Path

import command_line
import jsonschema
import numpy as np
import pytest
from command_line import run
from range_tests import FALLS, RATES, probes
from searches import searched

import keras_lr
from keras_lr.range_test.planned_run import planned_run
from keras_lr_cli import main

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")]
ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (ROOT / "cli" / "schemas").glob("*.json")
}


def closed(schema):
    """The schema, which then refuses members that it does not name."""
    schema = copy.deepcopy(schema)
    pending = [schema]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            if isinstance(each.get("properties"), dict) and "required" in each:
                each.setdefault("additionalProperties", False)
            pending += each.values()
        elif isinstance(each, list):
            pending += each
    return schema


def validated(command, *arguments, exit_code=0):
    """The objects that a command printed, each valid."""
    result = run(command, *arguments, "--json")
    assert result.exit_code == exit_code, result.output
    shown = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]
    for each in shown:
        jsonschema.validate(each, closed(SCHEMAS[command]))
        assert each["schema"] == SCHEMAS[command]["$id"]
    assert shown
    return shown


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    command_line.write_files(folder)
    return folder


def recorded(monkeypatch, **parts):
    """Replace the run by a curve."""

    def lr_find(model, *_, **options):
        planned = planned_run(options.get("policy"), options.get("total_steps"))
        made = {"learning_rates": RATES, "losses": FALLS, "planned": planned, **parts}
        return keras_lr.RangeTest(**made, training_steps=100)

    monkeypatch.setattr(keras_lr, "lr_find", lr_find)


def test_each_command_with_json_has_a_schema_that_is_one():
    with_json = {
        name
        for name, command in main.commands.items()
        if any("--json" in each.opts for each in command.params) or name == "preview"
    }
    assert with_json == set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$id"] == f"urn:keras-lr:{name}:1"
        for member, each in schema["properties"].items():
            assert each.get("description") or "const" in each, (name, member)


def test_find_in_a_real_run(files):
    options = ["--steps", "20", "--budget", "60", "--seed", "0", "--warmup", "--epochs", "50"]
    (answer,) = validated("find", files / "model.keras", *options)
    assert answer["warm_up"] and answer["metrics"]


def test_find_with_everything(files, monkeypatch, tmp_path):
    losses = np.vstack([FALLS, FALLS])
    losses[1, 90:], losses[0, -1] = np.nan, np.inf
    recorded(
        monkeypatch,
        losses=losses,
        metrics={"accuracy": losses},
        validation={"learning_rates": RATES[::20], "loss": FALLS[::20]},
        stop_reason="diverged",
        probes=probes(),
        provenance={"family": "adam", "hints": ["A hint."]},
    )
    plan = ["--policy", "one-cycle", "--total-steps", "1000", "--plot", tmp_path / "p.png"]
    (answer,) = validated("find", files / "model.keras", *plan)
    assert answer["written"] and answer["warnings"] and "inf" in answer["probes"]["losses"]
    (answer,) = validated("find", files / "model.keras")
    assert set(answer["policy_factors"]) == {"constant", "decaying"}


def test_find_without_a_suggestion(files, monkeypatch):
    recorded(monkeypatch, losses=np.ones(100))
    (answer,) = validated("find", files / "model.keras", exit_code=1)
    assert answer["learning_rate"] is None and answer["reason"]


def test_search(files, monkeypatch, tmp_path):
    monkeypatch.setattr(keras_lr, "search", lambda *_, **__: searched())
    (answer,) = validated("search", files / "model.keras", "--save", tmp_path / "s.json")
    assert {row["ended"] for row in answer["runs"]} == {"finished", "behind", "diverged"}


@pytest.mark.parametrize(
    "policy", [["one-cycle", "--max-lr", "0.1"], ["constant", "--learning-rate", "0.1"]]
)
def test_preview(policy):
    (answer,) = validated("preview", *policy, "--steps", "30")
    assert (answer["momenta"] is None) == (policy[0] == "constant")


@pytest.mark.parametrize("preset", [[], ["--preset", "discriminative:1e-5:1e-3"]])
def test_layers(files, preset):
    (answer,) = validated("layers", files / "model.keras", *preset)
    assert answer["parameters"] == 108 and len(answer["layers"]) == 2


def test_diagnose(tmp_path):
    folder = ROOT / "tests" / "data" / "diagnose_cases"
    logs = [folder / name for name in ("blown.csv", "short.csv", "gap.csv", "converged.csv")]
    twice = tmp_path / "twice.csv"
    rows = [f"{epoch},{math.exp(-epoch / 5)}" for epoch in (*range(8), *range(20))]
    twice.write_text("\n".join(["epoch,loss", *rows]))
    shown = validated("diagnose", *logs, twice)
    assert len(shown) == 5 and {"error", "not judged"} <= {each["verdict"] for each in shown}
    assert any(each["earlier"] for each in shown)


def test_the_page_lists_the_members():
    spec = importlib.util.spec_from_file_location("page", ROOT / "docs" / "json_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text("utf-8") == script.page()
