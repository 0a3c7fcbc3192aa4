"""Pictures of a diagnosis: axes, PNG, text and HTML."""

import base64
import re

import numpy as np
import pytest

import keras_lr
from keras_lr import plotting
from keras_lr.diagnosis import Diagnosis, diagnose
from keras_lr.diagnosis.report import page
from keras_lr.plotting.diagnosis import draw_diagnosis

pytestmark = pytest.mark.once

EPOCHS = np.arange(30)
LEARNING = 0.1 + 2.0 * np.exp(-EPOCHS / 5)
RISING = np.where(EPOCHS < 10, LEARNING, LEARNING[10] + (EPOCHS - 10) / 10)
OVERFIT = {"loss": LEARNING, "val_loss": RISING, "learning_rate": [0.1] * 30}
DIVERGED = {"loss": [2.0, 1.0, 0.5, 0.4, 0.9, 3.0, 20.0, 300.0]}
PNG = b"\x89PNG\r\n"


def spans(ax):
    """Begin and end of each shaded stretch."""
    found = []
    for patch in ax.patches:
        box = patch.get_extents().transformed(ax.transData.inverted())
        found.append((round(box.x0, 6), round(box.x1, 6)))
    return found


def test_losses_and_rate_with_the_epochs_of_the_finding_shaded():
    losses, rate = plotting.plot_diagnosis(diagnose(OVERFIT))
    lines = {line.get_label(): line for line in losses.lines}
    np.testing.assert_array_equal(lines["training loss"].get_ydata(), LEARNING)
    np.testing.assert_array_equal(lines["validation loss"].get_ydata(), RISING)
    assert lines["best val_loss"].get_xydata().tolist() == [[10, RISING[10]]]
    assert spans(losses) == spans(rate) == [(10, 29)]
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), [0.1] * 30)
    assert losses.get_title(loc="left") == "The log: overfitting"
    assert (losses.get_xlabel(), rate.get_xlabel()) == ("", "Epoch")


def test_the_panels_follow_the_log(tmp_path):
    import matplotlib.pyplot as plt

    ax = plotting.plot_diagnosis(diagnose(DIVERGED))
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "Loss (log scale)"
    assert spans(ax) == [(3, 7)]
    own = plt.figure().add_subplot()
    assert plotting.plot_diagnosis(diagnose(OVERFIT), own) is own
    sparse = [{"epoch": n, "loss": value} for n, value in enumerate(LEARNING)]
    sparse += [{"epoch": n, "val_loss": LEARNING[n]} for n in (9, 19, 29)]
    ax = plotting.plot_diagnosis(diagnose(sorted(sparse, key=lambda row: row["epoch"])))
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [9, 19, 29])
    lost = plotting.plot_diagnosis(diagnose({"loss": [2.0, 1.0, np.nan, np.inf]}))
    np.testing.assert_array_equal(lost.lines[0].get_ydata(), [2.0, 1.0, np.nan, np.nan])
    with pytest.raises(ValueError, match="has no log to draw"):
        plotting.plot_diagnosis(Diagnosis("made", 3, "epoch", ()))
    plt.close("all")


def test_the_picture_is_saved_whole(tmp_path):
    path = plotting.save_diagnosis_plot(diagnose(OVERFIT), tmp_path / "run.png")
    assert path.read_bytes().startswith(PNG)
    with pytest.raises(ValueError, match="must end in a format"):
        plotting.save_diagnosis_plot(diagnose(OVERFIT), tmp_path / "run.nothing")


def test_notebooks_and_reports_show_picture_and_text():
    twice = {"epoch": [*range(8), *range(30)], "loss": [*DIVERGED["loss"], *LEARNING]}
    html = diagnose(twice)._repr_html_()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(images) == 2  # one for each run
    assert all(base64.b64decode(image).startswith(PNG) for image in images)
    assert "Run 1 of 2, epoch 0 to 7" in html and "Train at a tenth of the rate" in html
    assert "<pre>" in Diagnosis("made", 3, "epoch", ())._repr_html_()
    whole = page([diagnose(OVERFIT), Diagnosis("<b>", 3, "epoch", ())])
    assert whole.startswith("<!DOCTYPE html>") and whole.endswith("</html>\n")
    assert "<h2>&lt;b&gt;</h2>" in whole and whole.count("<img ") == 1


@pytest.mark.parametrize("unicode", [True, False])
def test_a_picture_of_text(unicode):
    lines = draw_diagnosis(diagnose(OVERFIT), width=60, unicode=unicode)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 60 and text.isascii() != unicode
    assert lines[0].split()[0] == "2.27" and lines[11].split()[0] == "0.106"
    assert lines[13] == " " * 9 + "epoch 0" + " " * 42 + "29"
    # 51 columns for epochs 0 to 29: epoch 10 is in column 10 / 29 * 50 = 17.2.
    bar = lines[14].replace("├", "<").replace("┤", ">").replace("─", "-")
    assert bar == "overfitting ".rjust(9 + 17) + "<" + "-" * 32 + ">"
    assert lines[15].strip() == "o validation loss"
    assert draw_diagnosis(diagnose({"loss": [1.0]})) == []
    wide = draw_diagnosis(diagnose(DIVERGED), width=60)
    assert wide[0].split()[0] == "300" and wide[11].split()[0] == "0.4"


def test_a_diagnosis_is_equal_without_its_log():
    one, other = diagnose(OVERFIT), diagnose(OVERFIT)
    assert one == other and one.log is not None
    assert "log" not in one.to_dict() and keras_lr.Diagnosis is Diagnosis
