"""The range tests of three torch packages, on torch models equal to the Keras ones.

torch-lr-finder, Lightning's Tuner and ignite run the test on a `torch.nn.Module`. Their baseline is
the plain training loop of that module on the same `DataLoader`: they add nothing to Keras's `fit`.
Restoring weights and optimizer is part of the test, as it is of ours.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

LOOP = "plain torch loop"
LOW, HIGH = 1e-7, 1e-2  # as for the others: nothing diverges


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Dropout(0.1), nn.Linear(32, 10)),
    )


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True) for _ in range(2))
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        head: torch.Tensor = self.head(self.blocks(x).mean(dim=1))
        return head


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "transformer": Transformer, "cnn": cnn}


def contenders(name: str, x: np.ndarray, y: np.ndarray, batch: int) -> dict[str, Callable]:
    """Functions that train one epoch, one step a batch, each on its own model."""
    channels_first = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x
    data = torch.utils.data.TensorDataset(torch.from_numpy(channels_first), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True)
    makers = {
        LOOP: plain_loop,
        "torch-lr-finder": torch_lr_finder,
        "Lightning's Tuner": lightning,
        "ignite": ignite,
    }
    made = {}
    for peer, make in makers.items():
        torch.manual_seed(0)
        made[peer] = make(MODELS[name](), loader)
    return made


def plain_loop(model: nn.Module, loader) -> Callable:
    optimizer, criterion = torch.optim.Adam(model.parameters(), 1e-4), nn.CrossEntropyLoss()

    def run() -> None:
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()

    return run


def torch_lr_finder(model: nn.Module, loader) -> Callable:
    from torch_lr_finder import LRFinder

    optimizer = torch.optim.Adam(model.parameters(), LOW)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss())

    def run() -> None:
        finder.range_test(loader, end_lr=HIGH, num_iter=len(loader), diverge_th=1e9)
        assert len(finder.history["lr"]) == len(loader)
        finder.reset()

    return run


def ignite(model: nn.Module, loader) -> Callable:
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    optimizer = torch.optim.Adam(model.parameters(), LOW)
    trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    finder, saved = FastaiLRFinder(), {"model": model, "optimizer": optimizer}
    options = {"num_iter": len(loader), "start_lr": LOW, "end_lr": HIGH, "diverge_th": 1e9}

    def run() -> None:
        with warnings.catch_warnings(), finder.attach(trainer, saved, **options) as training:
            warnings.simplefilter("ignore")  # that nothing diverged
            training.run(loader)
        assert len(finder.get_results()["lr"]) >= len(loader) - 1

    return run


def lightning(model: nn.Module, loader) -> Callable:
    import pytorch_lightning as pl
    from pytorch_lightning.tuner import Tuner

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    criterion = nn.CrossEntropyLoss()

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = model, 1e-4

        def training_step(self, batch, index):
            x, y = batch
            return criterion(self.model(x), y)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), self.lr)

    module = Module()

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                accelerator="cpu",
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=folder,
            )
            found = Tuner(trainer).lr_find(
                module,
                loader,
                min_lr=LOW,
                max_lr=HIGH,
                num_training=len(loader),
                early_stop_threshold=None,
                update_attr=False,
            )
        assert len(found.results["lr"]) >= len(loader) - 1

    return run
