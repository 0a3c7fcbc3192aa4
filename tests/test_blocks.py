"""`layer_decay` counts the blocks of real architectures; the numbers are those of their papers."""

import keras
import pytest
from keras import applications, layers
from models import sampled

import keras_lr
from keras_lr import boost_head, layer_decay, layer_groups
from keras_lr.optimizers import blocks

pytestmark = pytest.mark.once

# Groups: the stem, the blocks that the paper counts, the head.
COUNTS = {
    "ResNet50": 1 + (3 + 4 + 6 + 3) + 1,
    "EfficientNetB0": 1 + (1 + 2 + 2 + 3 + 3 + 4 + 1) + 1,
    "EfficientNetV2B0": 1 + (1 + 2 + 2 + 3 + 5 + 8) + 1,
    "EfficientNetB7": 1 + 7 + 1,  # 55 blocks are counted by stages
    "MobileNet": 1 + 13 + 1,
    "MobileNetV2": 1 + 17 + 1,
    "MobileNetV3Small": 1 + 11 + 2 + 1,  # two convolutions between the blocks and the head
    "VGG16": 5 + 2 + 1,  # five blocks, two dense layers
    "DenseNet121": 1 + 4 + 1,  # four dense blocks
    "ConvNeXtTiny": 1 + (3 + 3 + 9 + 3) + 1,
    "Xception": 14 + 1,
    "InceptionV3": 1 + 11 + 1,
}
SMALL = {"ResNet50", "EfficientNetB0", "DenseNet121", "MobileNet", "MobileNetV2"}


def application(name, **options):
    if name in SMALL:
        options = {"input_shape": (64, 64, 3), **options}
    return getattr(applications, name)(weights=None, **options)


def names(groups):
    return [[part.layer.name for part in group] for group in groups]


@pytest.mark.parametrize(
    "name",
    sampled(
        list(COUNTS),
        *(name for name in COUNTS if name not in ("EfficientNetB7", "VGG16")),
        why="hundreds of layers like those of the others, or hundreds of MB",
        mark="long",
    ),
)
def test_the_groups_of_a_network_are_its_stem_its_blocks_and_its_head(name):
    model = application(name)
    found = blocks.groups_of(model)
    assert len(found) == COUNTS[name]
    held = [id(variable) for group in found for part in group for variable in part.trained]
    assert sorted(held) == sorted(map(id, model.trainable_variables))
    head = [layer for layer in model.layers if layer.trainable_variables][-1]
    assert names(found)[-1] == [head.name]
    multipliers = layer_decay(model, 0.75)
    values = sorted(set(multipliers.values()))
    expected = [0.75**place for place in reversed(range(COUNTS[name]))]
    assert values == pytest.approx(expected, rel=1e-12)
    assert boost_head(model) == {head.name: 10.0}


def test_all_that_is_in_a_block_has_one_multiplier():
    multipliers = layer_decay(application("ResNet50"), 0.75)
    blocks_of = {}
    for key, value in multipliers.items():
        blocks_of.setdefault("_".join(key.split("_")[:2]), set()).add(value)
    assert blocks_of["conv1_conv"] == blocks_of["conv1_bn"] == {0.75**17}
    assert blocks_of["conv2_block1"] == {0.75**16}
    assert blocks_of["conv5_block3"] == {0.75}


def hub(name, **options):
    models = pytest.importorskip("keras_hub").models
    text = {
        "vocabulary_size": 20, "num_layers": 12, "num_heads": 2, "hidden_dim": 8,
        "intermediate_dim": 8, "max_sequence_length": 8,
    }  # fmt: skip
    if name == "BERT":
        return models.BertTextClassifier(models.BertBackbone(**text), num_classes=2)
    if name == "BERT backbone":
        return models.BertBackbone(**text)
    if name == "GPT-2":
        return models.GPT2CausalLM(models.GPT2Backbone(**text))
    if name == "ViT":
        backbone = models.ViTBackbone(
            image_shape=(32, 32, 3), patch_size=16, num_layers=12, num_heads=2, hidden_dim=8,
            mlp_dim=8,
        )  # fmt: skip
        return models.ViTImageClassifier(backbone, num_classes=2)
    backbone = models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64] * 4,
        stackwise_num_blocks=[2] * 4, stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block", image_shape=(64, 64, 3),
    )  # fmt: skip
    return models.ResNetImageClassifier(backbone, num_classes=2)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("BERT", 1 + 12 + 1),
        ("BERT backbone", 1 + 12 + 1),  # the pooler is its head
        ("GPT-2", 1 + 12),  # the embedding is the head too
        ("ViT", 1 + 12 + 1),
        ("ResNet-18", 1 + 8 + 1),
    ],
)
def test_the_groups_of_keras_hub_are_embeddings_layers_and_the_head(name, count):
    model = hub(name)
    found = blocks.groups_of(model)
    assert len(found) == count
    if name in ("BERT", "GPT-2"):
        first = {part.layer.name for part in found[0]}
        assert {"token_embedding", "position_embedding"} <= first
    held = [id(variable) for group in found for part in group for variable in part.trained]
    assert sorted(held) == sorted(map(id, model.trainable_variables))
    assert len(layer_groups(model)) == count


def test_lora_layers_count_by_their_blocks_and_the_head_is_the_head():
    models = pytest.importorskip("keras_hub").models
    backbone = hub("BERT backbone")
    backbone.enable_lora(2)
    model = models.BertTextClassifier(backbone, num_classes=2)
    assert len(blocks.groups_of(model)) == 12 + 1
    assert boost_head(model) == {"logits": 10.0}
    model.get_layer("logits").enable_lora(2)
    optimizer = keras_lr.optimizers.LayerwiseLR(keras.optimizers.SGD(), boost_head(model))
    optimizer.build(model.trainable_variables)
    head = {v.path: optimizer._multiplier_of(v).number for v in model.trainable_variables}
    boosted = {path for path, value in head.items() if value == 10.0}
    assert boosted == {"logits/lora_kernel_a", "logits/lora_kernel_b", "logits/bias"}


# Where names say nothing


def residual(inputs, count):
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs))
    for _ in range(count):
        y = x
        for _ in range(2):
            y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    return layers.GlobalAveragePooling2D()(x)


def test_residual_blocks_without_names_are_found_in_the_graph():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(2)(residual(inputs, 6)))
    assert [len(group) for group in blocks.groups_of(model)] == [2, *[4] * 6, 1]


def test_transformer_layers_without_names_are_found_in_the_graph():
    tokens = keras.Input((8,))
    x = layers.Embedding(20, 8)(tokens)
    for _ in range(5):
        y = layers.MultiHeadAttention(2, 4)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, y]))
        y = layers.Dense(8)(layers.Dense(16)(x))
        x = layers.LayerNormalization()(layers.Add()([x, y]))
    model = keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    assert [len(group) for group in blocks.groups_of(model)] == [1, *[5] * 5, 1]


def test_two_towers_are_counted_side_by_side():
    ends, inputs = [], [keras.Input((4,)), keras.Input((4,))]
    for x in inputs:
        for _ in range(3):
            x = layers.Dense(4)(x)
        ends.append(x)
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(ends)))
    assert [len(group) for group in blocks.groups_of(model)] == [2, 2, 2, 1]


def test_a_late_embedding_is_at_the_bottom():
    image, code = keras.Input((4,)), keras.Input((1,))
    x = layers.Dense(4, name="second")(layers.Dense(4, name="first")(image))
    e = layers.Flatten()(layers.Embedding(5, 4, name="codes")(code))
    model = keras.Model([image, code], layers.Dense(1, name="out")(layers.Add()([x, e])))
    assert [set(group) for group in names(blocks.groups_of(model))] == [
        {"first", "codes"}, {"second"}, {"out"},
    ]  # fmt: skip


def test_parts_of_a_layer_that_keeps_a_list_of_blocks_count():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

    class Encoder(layers.Layer):
        def __init__(self):
            super().__init__()
            self.blocks = [Block() for _ in range(4)]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model = keras.Sequential([keras.Input((4,)), Encoder(), layers.Dense(1)])
    assert len(blocks.groups_of(model)) == 4 + 1


# Heads


def test_each_output_has_its_head_with_the_stack_that_leads_to_it_alone():
    inputs = keras.Input((8, 8, 3))
    x = residual(inputs, 6)
    box = layers.Dense(4, name="box")(layers.Dense(8, name="box_hidden")(x))
    kind = layers.Dense(3, name="kind")(x)
    expected = {"box_hidden": 10.0, "box": 10.0, "kind": 10.0}
    for outputs in ([box, kind], {"b": box, "k": kind}, layers.Concatenate()([box, kind])):
        model = keras.Model(inputs, outputs)
        assert boost_head(model) == expected
        decayed = layer_decay(model, 0.5)
        assert {decayed[name] for name in expected} == {1.0}
        assert min(decayed.values()) == 0.5**7  # a stem and six blocks before the heads


def test_an_output_on_the_way_has_no_head():
    inputs = keras.Input((4,))
    features = layers.Dense(4, name="features")(inputs)
    model = keras.Model(inputs, [layers.Dense(1, name="out")(features), features])
    assert boost_head(model) == {"out": 10.0}


def test_heads_of_a_subclassed_model_are_those_called_so():
    class Detector(keras.Model):
        def __init__(self):
            super().__init__()
            self.trunk = keras.Sequential([layers.Dense(4, name="a"), layers.Dense(4, name="b")])
            self.box_head = layers.Dense(4, name="one")
            self.class_head = keras.Sequential([layers.Dense(3, name="two")])

        def call(self, x):
            x = self.trunk(x)
            return self.box_head(x), self.class_head(x)

    model = Detector()
    model(keras.ops.ones((2, 4)))
    assert boost_head(model) == {"one": 10.0, "two": 10.0}
    assert layer_decay(model, 0.5) == {"a": 0.25, "b": 0.5, "one": 1.0, "two": 1.0}


# min_scale


def deep(count=12):
    model = keras.Sequential([keras.Input((2,))])
    for place in range(count):
        model.add(layers.Dense(2, name=f"d{place}"))
    return model


def test_min_scale_is_the_smallest_multiplier():
    multipliers = layer_decay(deep(), 0.5, min_scale=0.01)
    assert list(multipliers.values()) == [max(0.5**place, 0.01) for place in range(11, -1, -1)]


def test_layers_that_hardly_train_are_told():
    with pytest.warns(UserWarning, match=r"below 0\.001 .* gives 0\.00049 to the first of 12"):
        layer_decay(deep(), 0.5)
    with pytest.warns(UserWarning, match="first of 2 groups"):
        layer_decay(deep(2), 0.0005, groups=["d0", "d1"])


@pytest.mark.parametrize("value", [0, -0.1, 1.5, float("nan")])
def test_a_min_scale_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"min_scale must be .*in \(0, 1\]; got "):
        layer_decay(deep(), 0.9, min_scale=value)


def test_groups_are_what_gradual_unfreeze_takes():
    model = deep(3)
    model.compile("sgd", "mse")
    assert layer_groups(model) == [["d0"], ["d1"], ["d2"]]
    x = keras.ops.ones((4, 2))
    thaw = keras_lr.GradualUnfreeze(layer_groups(model)[::-1])
    model.fit(x, x, epochs=3, verbose=0, callbacks=[thaw])
