"""Models that learn from comparisons: contrastive with a probe, distillation, triplets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from field_models.registry import add, as_given
from field_models.training import descend, on, track


def classified(rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(2).normal(size=(rows, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)


class Contrastive(keras.Model):
    """An encoder that learns from two noisy views, and a probe that learns from labels."""

    def __init__(self) -> None:
        super().__init__()
        self.augmenter = keras.Sequential(
            [keras.Input((6,)), layers.GaussianNoise(0.1, seed=1), layers.Dropout(0.1, seed=2)]
        )
        self.encoder = keras.Sequential(
            [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.ReLU()]
        )
        self.projection_head = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
        self.linear_probe = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
        if not on("tensorflow"):
            self.built = True

    def compile(self, contrastive_optimizer: Any, probe_optimizer: Any, **options: Any) -> None:
        super().compile(**options)
        self.contrastive_optimizer = contrastive_optimizer
        self.probe_optimizer = probe_optimizer
        self.contrastive_loss_tracker = keras.metrics.Mean(name="c_loss")
        self.probe_loss_tracker = keras.metrics.Mean(name="p_loss")
        self.probe_accuracy = keras.metrics.SparseCategoricalAccuracy(name="p_acc")
        self.probe_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @property
    def metrics(self) -> list[Any]:
        return [self.contrastive_loss_tracker, self.probe_loss_tracker, self.probe_accuracy]

    def project(self, images: Any) -> Any:
        features = self.encoder(self.augmenter(images, training=True), training=True)
        projected = self.projection_head(features, training=True)
        return projected / ops.sqrt(ops.sum(projected**2, axis=1, keepdims=True) + 1e-6)

    def contrastive_loss(self, images: Any) -> Any:
        similarities = ops.matmul(self.project(images), ops.transpose(self.project(images))) / 0.2
        labels = ops.arange(ops.shape(images)[0])
        return ops.mean(
            keras.losses.sparse_categorical_crossentropy(labels, similarities, from_logits=True)
        )

    def train_step(self, data: Any) -> Any:
        (unlabeled, labeled), labels = data
        c_loss = descend(
            lambda: self.contrastive_loss(ops.concatenate([unlabeled, labeled])),
            self.encoder.trainable_weights + self.projection_head.trainable_weights,
            self.contrastive_optimizer,
        )
        logits: list[Any] = []

        def probe_loss() -> Any:
            logits.append(self.linear_probe(self.encoder(labeled, training=False)))
            return self.probe_loss(labels, logits[-1])

        p_loss = descend(probe_loss, self.linear_probe.trainable_weights, self.probe_optimizer)
        self.probe_accuracy.update_state(labels, logits[-1])
        logs = track({self.contrastive_loss_tracker: c_loss, self.probe_loss_tracker: p_loss})
        return {**logs, "p_acc": self.probe_accuracy.result()}

    def test_step(self, data: Any) -> Any:
        (_, labeled), labels = data
        logits = self.linear_probe(self.encoder(labeled, training=False))
        self.probe_accuracy.update_state(labels, logits)
        logs = track({self.probe_loss_tracker: self.probe_loss(labels, logits)})
        return {**logs, "p_acc": self.probe_accuracy.result()}


def contrastive(wrap: Any = as_given) -> keras.Model:
    model = Contrastive()
    model.compile(
        contrastive_optimizer=keras.optimizers.Adam(0.003),
        probe_optimizer=wrap(keras.optimizers.Adam(0.01)),
    )
    return model


def views() -> tuple[Any, Any]:
    x, y = classified()
    return (x[::-1].copy(), x), y


add(
    "contrastive",
    make=contrastive,
    data=views,
    optimizer="probe_optimizer",
    others=("contrastive_optimizer",),
    choose=True,
    monitor="p_loss",
    backends=("tensorflow", "torch"),
    why_not="the step is written for the tapes of TensorFlow and torch: train_step(data)",
    saved=False,
)


class Distiller(keras.Model):
    """A student learns from a teacher that was compiled and trained, and is frozen."""

    def __init__(self, student: Any, teacher: Any) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student

    def compile(self, optimizer: Any, metrics: Any, student_loss_fn: Any, alpha: float) -> None:
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss_fn = student_loss_fn
        self.distillation_loss_fn = keras.losses.KLDivergence()
        self.alpha = alpha

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **_: Any
    ) -> Any:
        teacher = ops.softmax(self.teacher(x, training=False) / 2.0)
        student = ops.softmax(y_pred / 2.0)
        distilled = self.distillation_loss_fn(teacher, student) * 4.0
        return self.alpha * self.student_loss_fn(y, y_pred) + (1 - self.alpha) * distilled

    def call(self, x: Any) -> Any:
        return self.student(x)


def _classifier(units: int, name: str) -> keras.Model:
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(units, activation="relu"), layers.Dense(3)], name=name
    )


def distillation(wrap: Any = as_given) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher = _classifier(12, "teacher")
    teacher.compile(keras.optimizers.Adam(0.01), loss)
    teacher.fit(*classified(), batch_size=20, verbose=0)
    teacher.trainable = False
    model = Distiller(_classifier(4, "student"), teacher)
    model.compile(
        wrap(keras.optimizers.Adam(0.02)),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
        student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        alpha=0.3,
    )
    return model


add("distillation", make=distillation, data=classified, saved=False)


class Siamese(keras.Model):
    """Triplets: `call` returns two distances, and the step computes the loss from them."""

    def __init__(self, network: Any, margin: float = 9.0) -> None:
        super().__init__()
        self.network, self.margin = network, margin
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_tracker]

    def call(self, inputs: Any) -> Any:
        anchor, positive, negative = (self.network(part) for part in inputs)
        near = ops.sum((anchor - positive) ** 2, axis=-1)
        return near, ops.sum((anchor - negative) ** 2, axis=-1)

    def loss_of(self, triplets: Any) -> Any:
        near, far = self(triplets)
        return ops.mean(ops.maximum(near - far + self.margin, 0.0))

    def train_step(self, data: Any) -> Any:
        triplets = data[0] if len(data) == 1 else data
        loss = descend(
            lambda: self.loss_of(triplets), self.network.trainable_weights, self.optimizer
        )
        return track({self.loss_tracker: loss})

    def test_step(self, data: Any) -> Any:
        triplets = data[0] if len(data) == 1 else data
        return track({self.loss_tracker: self.loss_of(triplets)})


def siamese(wrap: Any = as_given) -> keras.Model:
    model = Siamese(keras.Sequential([keras.Input((6,)), layers.Dense(4)]))
    model.compile(wrap(keras.optimizers.Adam(0.01)))
    return model


def triplets() -> tuple[Any, None]:
    x = np.random.default_rng(3).normal(size=(3, 40, 6)).astype("float32")
    return (x[0], x[0] + 0.3 * x[1], x[2]), None


add(
    "siamese",
    make=siamese,
    data=triplets,
    backends=("tensorflow", "torch"),
    why_not="the step is written for the tapes of TensorFlow and torch: train_step(data)",
    saved=False,
)
