"""Models that prepare their data themselves: they override `fit`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from field_models.registry import add, as_given


@keras.saving.register_keras_serializable("field_models")
class Prepared(keras.Sequential):
    """Takes raw values from 0 to 255 and scales them before it trains, evaluates or predicts."""

    @staticmethod
    def prepare(x: Any) -> Any:
        return (np.asarray(x, "float32") - 127.5) / 127.5

    def fit(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        if options.get("validation_data") is not None:
            raw, *targets = options["validation_data"]
            options["validation_data"] = (self.prepare(raw), *targets)
        return super().fit(self.prepare(x), y, **options)

    def evaluate(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        if not options.get("_use_cached_eval_dataset"):
            x = self.prepare(x)
        return super().evaluate(x, y, **options)


def prepared(wrap: Any = as_given) -> keras.Model:
    model = Prepared([keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    model.compile(wrap(keras.optimizers.SGD(0.01, momentum=0.9)), "mse")
    return model


def raw() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(12).integers(0, 256, (40, 6)).astype("uint8")
    return x, (x.mean(axis=1) / 255).astype("float32")


add("prepared", make=prepared, data=raw)


def hub_task(wrap: Any = as_given) -> keras.Model:
    """A classifier of KerasHub, made from its config: `fit` takes raw pictures."""
    import keras_hub

    @keras.saving.register_keras_serializable("field_models")
    class Backbone(keras_hub.models.Backbone):
        def __init__(self, filters: int, **options: Any) -> None:
            inputs = keras.Input((8, 8, 3))
            features = layers.Conv2D(filters, 3, strides=2, activation="relu")(inputs)
            super().__init__(inputs=inputs, outputs=features, **options)
            self.filters = filters

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "filters": self.filters}

    converter = keras_hub.layers.ImageConverter((8, 8), scale=1 / 255)
    model = keras_hub.models.ImageClassifier(
        backbone=Backbone(4),
        num_classes=2,
        preprocessor=keras_hub.models.ImageClassifierPreprocessor(converter),
    )
    model.compile(
        optimizer=wrap(keras.optimizers.Adam(0.01)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def raw_pictures() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(13)
    return random.integers(0, 256, (24, 9, 9, 3)).astype("uint8"), random.integers(0, 2, 24)


# KerasHub saves its tasks without the arguments of `compile`.
add("hub_task", make=hub_task, data=raw_pictures, saved=False)
