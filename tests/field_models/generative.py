"""Models that generate: variational autoencoder, GANs, diffusion."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from field_models.registry import add, as_given
from field_models.training import (
    apply,
    descend,
    gradients_of,
    jax_descend,
    jax_gradients,
    jax_held,
    jax_track,
    on,
    track,
)

LATENT = 3


def pictures(rows: int = 40) -> tuple[np.ndarray, None]:
    """Rows of 6 pixels that depend on two numbers."""
    random = np.random.default_rng(1)
    return (random.normal(size=(rows, 2)) @ random.normal(size=(2, 6))).astype("float32"), None


class Sampling(layers.Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(11)

    def call(self, inputs: Any) -> Any:
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


def encoder() -> keras.Model:
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    mean, log_variance = layers.Dense(LATENT)(hidden), layers.Dense(LATENT)(hidden)
    return keras.Model(inputs, [mean, log_variance, Sampling()([mean, log_variance])])


def decoder(name: str | None = None) -> keras.Model:
    return keras.Sequential(
        [keras.Input((LATENT,)), layers.Dense(8, activation="relu"), layers.Dense(6)], name=name
    )


class VAE(keras.Model):
    """No `call`: the step encodes and decodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder(), decoder()
        self.total_loss_tracker = keras.metrics.Mean(name="loss")
        self.reconstruction_loss_tracker = keras.metrics.Mean(name="reconstruction_loss")
        self.kl_loss_tracker = keras.metrics.Mean(name="kl_loss")
        if not on("tensorflow"):
            self.built = True  # fit would call the model to build it

    @property
    def metrics(self) -> list[Any]:
        return [
            self.total_loss_tracker,
            self.reconstruction_loss_tracker,
            self.kl_loss_tracker,
        ]

    def losses_of(self, x: Any) -> tuple[Any, Any]:
        mean, log_variance, latent = self.encoder(x)
        reconstruction = ops.mean(ops.sum((x - self.decoder(latent)) ** 2, axis=-1))
        kl = -0.5 * (1 + log_variance - mean**2 - ops.exp(log_variance))
        return reconstruction, ops.mean(ops.sum(kl, axis=1))

    def train_step(self, *arguments: Any) -> Any:
        parts: dict[str, Any] = {}

        def loss_of() -> Any:
            parts["reconstruction"], parts["kl"] = self.losses_of(x)
            return parts["reconstruction"] + parts["kl"]

        if on("jax"):
            return self.jax_train_step(*arguments)
        (x,) = arguments
        x = x[0] if isinstance(x, tuple) else x
        loss = descend(loss_of, self.trainable_weights, self.optimizer)
        return track(
            {
                self.total_loss_tracker: loss,
                self.reconstruction_loss_tracker: parts["reconstruction"],
                self.kl_loss_tracker: parts["kl"],
            }
        )

    def jax_train_step(self, state: Any, data: Any) -> Any:
        x = data[0] if isinstance(data, tuple) else data
        loss, state = jax_descend(self, lambda: sum(self.losses_of(x)), state)
        logs, metrics = jax_track(self, state[3], {self.total_loss_tracker: loss})
        return logs, (*state[:3], metrics)


def vae(wrap: Any = as_given) -> keras.Model:
    model = VAE()
    model.compile(optimizer=wrap(keras.optimizers.Adam(0.01)))
    return model


add("vae", make=vae, data=pictures, validates=False, saved=False)


def discriminator(name: str | None = None) -> keras.Model:
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="leaky_relu"), layers.Dense(1)], name=name
    )


class GAN(keras.Model):
    """Two optimizers, besides the one that `super().compile()` makes, which trains nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminator, self.generator = discriminator(), decoder()
        self.seed_generator = keras.random.SeedGenerator(5)
        self.d_loss_tracker = keras.metrics.Mean(name="d_loss")
        self.g_loss_tracker = keras.metrics.Mean(name="g_loss")
        if not on("tensorflow"):
            self.built = True

    def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:
        super().compile()
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer
        self.loss_fn = loss_fn
        if on("jax"):
            # The state that JAX's fit carries has the slots of one optimizer. Those of the others
            # go with the model's variables.
            d_optimizer.build(self.discriminator.trainable_variables)
            g_optimizer.build(self.generator.trainable_variables)
            self.slots = [*d_optimizer.variables, *g_optimizer.variables]

    @property
    def metrics(self) -> list[Any]:
        return [self.d_loss_tracker, self.g_loss_tracker]

    def generate(self, count: int) -> Any:
        return self.generator(keras.random.normal((count, LATENT), seed=self.seed_generator))

    def d_loss(self, real: Any) -> Any:
        count = ops.shape(real)[0]
        fake = ops.stop_gradient(self.generate(count))
        labels = ops.concatenate([ops.ones((count, 1)), ops.zeros((count, 1))])
        return self.loss_fn(labels, self.discriminator(ops.concatenate([real, fake])))

    def g_loss(self, count: int) -> Any:
        return self.loss_fn(ops.ones((count, 1)), self.discriminator(self.generate(count)))

    def train_step(self, *arguments: Any) -> Any:
        if on("jax"):
            return self.jax_train_step(*arguments)
        (real,) = arguments
        real = real[0] if isinstance(real, tuple) else real
        d_loss = descend(
            lambda: self.d_loss(real), self.discriminator.trainable_weights, self.d_optimizer
        )
        g_loss = descend(
            lambda: self.g_loss(ops.shape(real)[0]),
            self.generator.trainable_weights,
            self.g_optimizer,
        )
        return track({self.d_loss_tracker: d_loss, self.g_loss_tracker: g_loss})

    def jax_train_step(self, state: Any, data: Any) -> Any:
        real = data[0] if isinstance(data, tuple) else data
        trainable, other, slots, metrics = state
        held = jax_held(self.trainable_variables, trainable)
        held.update(jax_held(self.non_trainable_variables, other))
        losses = {}
        for tracker, part, optimizer, loss_of in (
            (
                self.d_loss_tracker,
                self.discriminator,
                self.d_optimizer,
                lambda: self.d_loss(real),
            ),
            (
                self.g_loss_tracker,
                self.generator,
                self.g_optimizer,
                lambda: self.g_loss(real.shape[0]),
            ),
        ):
            variables = part.trainable_variables
            values = [held.pop(id(variable))[1] for variable in variables]
            losses[tracker], gradients = jax_gradients(loss_of, variables, values, held)
            own = [held[id(variable)][1] for variable in optimizer.variables]
            values, own = optimizer.stateless_apply(own, gradients, values)
            held.update(jax_held(variables, values))
            held.update(jax_held(optimizer.variables, own))
        logs, metrics = jax_track(self, metrics, losses)
        trainable = [held[id(variable)][1] for variable in self.trainable_variables]
        other = [held[id(variable)][1] for variable in self.non_trainable_variables]
        return logs, (trainable, other, slots, metrics)


def gan(wrap: Any = as_given) -> keras.Model:
    model = GAN()
    model.compile(
        d_optimizer=wrap(keras.optimizers.Adam(0.01)),
        g_optimizer=keras.optimizers.Adam(0.003),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


add(
    "gan",
    make=gan,
    data=pictures,
    optimizer="d_optimizer",
    others=("g_optimizer",),
    choose=True,
    monitor="d_loss",
    validates=False,
    saved=False,
)


class WGAN(keras.Model):
    """Three updates of the critic for each batch, with a gradient penalty."""

    critic_updates = 3

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.generator = discriminator("critic"), decoder("generator")
        self.seed_generator = keras.random.SeedGenerator(6)
        if not on("tensorflow"):
            self.built = True

    def compile(self, d_optimizer: Any, g_optimizer: Any) -> None:
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def generate(self, count: int) -> Any:
        noise = keras.random.normal((count, LATENT), seed=self.seed_generator)
        return self.generator(noise, training=True)

    def penalty(self, real: Any, fake: Any) -> Any:
        share = keras.random.uniform((ops.shape(real)[0], 1), seed=self.seed_generator)
        between = real + share * (fake - real)
        if on("tensorflow"):
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(between)
                score = self.critic(between, training=True)
            slope = tape.gradient(score, between)
        else:
            import torch

            between.requires_grad_(True)
            score = self.critic(between, training=True)
            (slope,) = torch.autograd.grad(score.sum(), between, create_graph=True)
        norm = ops.sqrt(ops.sum(slope**2, axis=1) + 1e-12)
        return ops.mean((norm - 1.0) ** 2)

    def critic_loss(self, real: Any) -> Any:
        fake = ops.stop_gradient(self.generate(ops.shape(real)[0]))
        return (
            ops.mean(self.critic(fake, training=True))
            - ops.mean(self.critic(real, training=True))
            + 10.0 * self.penalty(real, fake)
        )

    def train_step(self, data: Any) -> Any:
        real = data[0] if isinstance(data, tuple) else data
        for _ in range(self.critic_updates):
            d_loss = descend(
                lambda: self.critic_loss(real), self.critic.trainable_weights, self.d_optimizer
            )
        g_loss = descend(
            lambda: -ops.mean(self.critic(self.generate(ops.shape(real)[0]), training=True)),
            self.generator.trainable_weights,
            self.g_optimizer,
        )
        return {"d_loss": d_loss, "g_loss": g_loss}


def wgan_gp(wrap: Any = as_given) -> keras.Model:
    model = WGAN()
    model.compile(
        d_optimizer=wrap(keras.optimizers.Adam(0.002, beta_1=0.5, beta_2=0.9)),
        g_optimizer=keras.optimizers.Adam(0.002, beta_1=0.5, beta_2=0.9),
    )
    return model


add(
    "wgan_gp",
    make=wgan_gp,
    data=pictures,
    optimizer="d_optimizer",
    others=("g_optimizer",),
    choose=True,
    monitor="d_loss",
    updates=3,
    backends=("tensorflow", "torch"),
    why_not="the step is written for the tapes of TensorFlow and torch: train_step(data)",
    validates=False,
    saved=False,
)


class ManyOptimizers(keras.Model):
    """A GAN with optimizers in a list or in a dictionary."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind
        self.parts = [discriminator(), decoder()]
        self.seed_generator = keras.random.SeedGenerator(7)
        if not on("tensorflow"):
            self.built = True

    def compile(self, optimizers: Any) -> None:
        super().compile()
        self.optimizers = optimizers

    def train_step(self, data: Any) -> Any:
        real = data[0] if isinstance(data, tuple) else data
        judge, generator = self.parts
        names = ("d", "g") if self.kind is dict else (0, 1)
        count = ops.shape(real)[0]

        def fake() -> Any:
            return generator(keras.random.normal((count, LATENT), seed=self.seed_generator))

        d_loss = descend(
            lambda: ops.mean((judge(real) - 1) ** 2) + ops.mean(judge(fake()) ** 2),
            judge.trainable_weights,
            self.optimizers[names[0]],
        )
        g_loss = descend(
            lambda: ops.mean((judge(fake()) - 1) ** 2),
            generator.trainable_weights,
            self.optimizers[names[1]],
        )
        return {"d_loss": d_loss, "g_loss": g_loss}


def optimizer_list(wrap: Any = as_given) -> keras.Model:
    model = ManyOptimizers(list)
    model.compile([keras.optimizers.Adam(0.002), wrap(keras.optimizers.SGD(0.02, momentum=0.9))])
    return model


def optimizer_dict(wrap: Any = as_given) -> keras.Model:
    model = ManyOptimizers(dict)
    model.compile({"d": keras.optimizers.Adam(0.002), "g": wrap(keras.optimizers.RMSprop(0.02))})
    return model


for name, make, chosen, other, momentum in (
    ("optimizer_list", optimizer_list, "optimizers[1]", "optimizers[0]", True),
    ("optimizer_dict", optimizer_dict, "optimizers['g']", "optimizers['d']", False),
):
    add(
        name,
        make=make,
        data=pictures,
        optimizer=chosen,
        others=(other,),
        choose=True,
        monitor="g_loss",
        momentum=momentum,
        backends=("tensorflow", "torch"),
        why_not="the step is written for the tapes of TensorFlow and torch: train_step(data)",
        validates=False,
        saved=False,
    )


class Diffusion(keras.Model):
    """Logs `n_loss` and `i_loss` and no `loss`; a second network holds averaged weights."""

    ema = 0.9

    def __init__(self) -> None:
        super().__init__()
        self.normalizer = layers.Normalization()
        self.network = self.make_network()
        self.ema_network = self.make_network()
        self.ema_network.set_weights(self.network.get_weights())
        self.ema_network.trainable = False
        self.seed_generator = keras.random.SeedGenerator(8)
        if not on("tensorflow"):
            self.built = True

    def make_network(self) -> keras.Model:
        noisy, variance = keras.Input((6,)), keras.Input((1,))
        hidden = layers.Concatenate()([noisy, variance])
        hidden = layers.Dense(8, activation="swish")(hidden)
        return keras.Model([noisy, variance], layers.Dense(6, kernel_initializer="zeros")(hidden))

    def compile(self, **options: Any) -> None:
        super().compile(**options)
        self.noise_loss_tracker = keras.metrics.Mean(name="n_loss")
        self.image_loss_tracker = keras.metrics.Mean(name="i_loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.noise_loss_tracker, self.image_loss_tracker]

    def losses_of(self, images: Any, network: Any, training: bool) -> tuple[Any, Any]:
        images = self.normalizer(images)
        count = ops.shape(images)[0]
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        angle = keras.random.uniform((count, 1), 0.1, 1.5, seed=self.seed_generator)
        signal_rate, noise_rate = ops.cos(angle), ops.sin(angle)
        noisy = signal_rate * images + noise_rate * noise
        guess = network([noisy, noise_rate**2], training=training)
        found = (noisy - noise_rate * guess) / signal_rate
        return ops.mean(ops.abs(noise - guess)), ops.mean(ops.abs(images - found))

    def train_step(self, *arguments: Any) -> Any:
        if on("jax"):
            return self.jax_train_step(*arguments)
        (data,) = arguments
        images = data[0] if isinstance(data, tuple) else data
        parts: dict[str, Any] = {}

        def loss_of() -> Any:
            parts["noise"], parts["image"] = self.losses_of(images, self.network, True)
            return parts["noise"]

        _, gradients = gradients_of(loss_of, self.network.trainable_weights)
        apply(self.optimizer, gradients, self.network.trainable_weights)
        pairs = zip(self.network.weights, self.ema_network.weights, strict=True)
        for weight, average in pairs:
            average.assign(self.ema * average + (1 - self.ema) * weight)
        return track(
            {self.noise_loss_tracker: parts["noise"], self.image_loss_tracker: parts["image"]}
        )

    def jax_train_step(self, state: Any, data: Any) -> Any:
        images = data[0] if isinstance(data, tuple) else data
        loss, (trainable, other, slots, metrics) = jax_descend(
            self, lambda: self.losses_of(images, self.network, True)[0], state
        )
        held = jax_held(self.non_trainable_variables, other)
        for value, average in zip(trainable, self.ema_network.weights, strict=True):
            old = held[id(average)][1]
            held[id(average)] = (average, self.ema * old + (1 - self.ema) * value)
        logs, metrics = jax_track(self, metrics, {self.noise_loss_tracker: loss})
        return logs, (trainable, [value for _, value in held.values()], slots, metrics)

    def test_step(self, *arguments: Any) -> Any:
        if on("jax"):
            return self.jax_test_step(*arguments)
        (data,) = arguments
        images = data[0] if isinstance(data, tuple) else data
        noise, image = self.losses_of(images, self.ema_network, False)
        return track({self.noise_loss_tracker: noise, self.image_loss_tracker: image})

    def jax_test_step(self, state: Any, data: Any) -> Any:
        images = data[0] if isinstance(data, tuple) else data
        trainable, other, metrics = state
        mapping = [
            *zip(self.trainable_variables, trainable, strict=True),
            *zip(self.non_trainable_variables, other, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            noise, image = self.losses_of(images, self.ema_network, False)
        other = [scope.get_current_value(v) for v in self.non_trainable_variables]
        values = {self.noise_loss_tracker: noise, self.image_loss_tracker: image}
        logs, metrics = jax_track(self, metrics, values)
        return logs, (trainable, other, metrics)


def diffusion(wrap: Any = as_given) -> keras.Model:
    model = Diffusion()
    model.normalizer.adapt(pictures()[0])
    model.compile(optimizer=wrap(keras.optimizers.AdamW(0.01, weight_decay=1e-4)))
    return model


add("diffusion", make=diffusion, data=pictures, monitor="n_loss", saved=False)
