"""The options of `keras-lr find` that no other command has."""

from __future__ import annotations

import click

from .distribution import STRATEGIES
from .options import options
from .report import RULES

METHODS = ("auto", "curve", *RULES)
POLICIES = ("constant", "one-cycle", "cosine", "wsd")

run_options = options(
    click.option(
        "--policy",
        metavar="POLICY",
        type=click.Choice(POLICIES),
        help=f"Policy of the planned run: {', '.join(POLICIES)}.",
    ),
    click.option(
        "--total-steps",
        metavar="N",
        type=click.IntRange(min=1),
        help="Length of the planned run in updates.",
    ),
    click.option(
        "--epochs",
        metavar="N",
        type=click.IntRange(min=1),
        help="Length of the planned run in epochs of this data.",
    ),
    click.option(
        "--budget",
        metavar="N",
        type=click.IntRange(min=1),
        help="Training steps of the whole test; by default 5% of the planned run, "
        "within 100 and 500, or 200 if its length is unknown.",
    ),
)
ramp_options = options(
    click.option(
        "--start-lr",
        metavar="RATE",
        type=click.FloatRange(min=0, min_open=True),
        help="First rate of the ramp; the default depends on the optimizer.",
    ),
    click.option(
        "--end-lr",
        metavar="RATE",
        type=click.FloatRange(min=0, min_open=True),
        help="Last rate of the ramp; the default depends on the optimizer.",
    ),
    click.option(
        "--steps",
        metavar="N",
        type=click.IntRange(min=3),
        help="Training steps of the ramp; 50 by default.",
    ),
    click.option(
        "--ramp",
        type=click.Choice(["exponential", "linear"]),
        default="exponential",
        show_default=True,
        help="Shape of the ramp.",
    ),
    click.option(
        "--repeats",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Ramps to run, each on other batches.",
    ),
    click.option(
        "--stop-factor",
        metavar="X",
        type=click.FloatRange(min=1, min_open=True),
        default=4.0,
        show_default=True,
        help="Stop the ramp when the loss is about X times its best; inf never stops it.",
    ),
    click.option(
        "--optimizer-name",
        metavar="NAME",
        help="Optimizer to test if MODEL has several, such as d_optimizer.",
    ),
    click.option(
        "--monitor",
        metavar="NAME",
        default="loss",
        show_default=True,
        help="Log entry of train_step that is the loss.",
    ),
    click.option(
        "--confirm/--no-confirm",
        default=None,
        hidden=True,
        help="Deprecated: --confirm means --budget 500.",
    ),
    click.option(
        "--warmup",
        is_flag=True,
        help="Also find the shortest warm-up with which the rate does not diverge.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", help="Make the test repeatable."
    ),
    click.option(
        "--method",
        type=click.Choice(METHODS),
        metavar="RULE",
        default="auto",
        show_default=True,
        help=f"Rule that suggests the rate: {', '.join(METHODS)}.",
    ),
)
device_options = options(
    click.option(
        "--distribute",
        metavar="HOW",
        type=click.Choice(list(STRATEGIES)),
        help="Use all devices: mirrored (TensorFlow) or data-parallel (JAX). They share "
        "each batch; --batch-size counts the examples of all devices.",
    ),
)
output_options = options(
    click.option("--plot", metavar="FILE", help="Save the plot: .png, .svg, .pdf."),
    click.option("--save", metavar="FILE", help="Save the curve as JSON."),
    click.option("--report", metavar="FILE", help="Save a report as one HTML file."),
    click.option("--compare", is_flag=True, help="Show the rules of other libraries too."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object only."),
    click.option("--quiet", is_flag=True, help="Print the rate only."),
)
