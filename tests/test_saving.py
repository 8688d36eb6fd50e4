"""Model files: Keras's own both ways, legacy ones, the deployment file, and damaged ones."""

import contextlib
import io
import json
import os
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tidegate as tg
from tidegate import saving
from tidegate.saving import files

h5py = pytest.importorskip("h5py")
# Keras's own variables, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KERAS2 = Path(__file__).parent / "data" / "keras2"


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", reason="Keras is not installed")


# ------------------------------------------------------------------------------------- models
# Each is a function of the package, tidegate or Keras, so that both build the same.
def stacked(k):
    return [
        k.layers.Input((6, 3)),
        k.layers.LSTM(5, return_sequences=True, recurrent_activation="hard_sigmoid", name="first"),
        k.layers.Dropout(0.3),
        k.layers.LSTM(4, kernel_regularizer="l2", bias_constraint="non_neg", dropout=0.1, seed=3),
        k.layers.Dense(2, activation="softmax"),
    ]


def gated(k):
    return [
        k.layers.Input((None, 3)),
        k.layers.GRU(5, return_sequences=True, reset_after=False, use_bias=False),
        k.layers.GRU(4, return_sequences=True, go_backwards=True, activation="relu"),
        k.layers.SimpleRNN(4, activation="elu", recurrent_initializer="glorot_normal"),
        k.layers.Activation("gelu"),
    ]


def masked_words(k):
    return [
        k.layers.Input((6,), dtype="int32"),
        k.layers.Embedding(9, 4, mask_zero=True),
        k.layers.Bidirectional(k.layers.GRU(3, return_sequences=True)),
        k.layers.TimeDistributed(k.layers.Dense(3, activation="tanh")),
        k.layers.Bidirectional(k.layers.LSTM(2), merge_mode="ave"),
    ]


def cells(k):
    return [
        k.layers.Input((6, 3)),
        k.layers.Masking(0.5),
        k.layers.RNN([k.layers.LSTMCell(4), k.layers.GRUCell(3)], return_sequences=True),
        k.layers.RNN(k.layers.SimpleRNNCell(4), return_sequences=True, zero_output_for_mask=True),
    ]


def flat(k):
    return [
        k.layers.Input(batch_shape=(2, 6, 3)),
        k.layers.LSTM(3, return_sequences=True, unit_forget_bias=False, stateful=True),
        k.layers.Flatten(),
        k.layers.Dense(4, use_bias=False, kernel_initializer="he_uniform"),
        k.layers.Dense(2, activation="leaky_relu", activity_regularizer="l2"),
    ]


def double(k):
    return [
        k.layers.Input((6, 3), dtype="float64"),
        k.layers.LSTM(3, dtype="float64"),
        k.layers.Dense(2, dtype="float64"),
    ]


def dual_state(k):
    return [
        k.layers.Input((6, 3)),
        k.layers.DualStateGRU(4, return_sequences=True),
        k.layers.Bidirectional(k.layers.DualStateGRU(3)),
    ]


def coupled(k):
    return [k.layers.Input((6, 3)), k.layers.CoupledLSTM(4, return_sequences=True)]


def coupled_cell(k):
    return [k.layers.Input((6, 3)), k.layers.RNN(k.layers.CoupledLSTMCell(3))]


def nested(k):
    inner = [k.layers.Input((6, 3)), k.layers.LSTM(4, return_sequences=True), k.layers.LSTM(4)]
    return [k.layers.Input((6, 3)), k.Sequential(inner, name="inner"), k.layers.Dense(2)]


SHARED = [stacked, gated, masked_words, cells, flat, nested]


def inputs_for(build):
    random = np.random.default_rng(5)
    if build is masked_words:
        return random.integers(0, 9, (2, 6)).astype("int32")
    x = random.normal(size=(2, 6, 3)).astype("float64" if build is double else "float32")
    if build is cells:
        x[0, 4:] = 0.5
    return x


def model_of(build, seed=1):
    """A tidegate model whose weights are all random, the biases too."""
    model = tg.Sequential(build(tg))
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(size=w.shape) * 0.4 for w in model.get_weights()])
    return model


def predict(model, build):
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()
    return np.asarray(model.predict(inputs_for(build), verbose=0))


def same_weights(a, b):
    a, b = a.get_weights(), b.get_weights()
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------- Keras's own format
@pytest.mark.parametrize("build", SHARED)
class TestWithKeras:
    def test_there_and_back(self, keras, build, tmp_path):
        """tidegate -> .keras -> Keras -> .keras -> tidegate: the same predictions, bit by bit."""
        model = model_of(build)
        expected = predict(model, build)
        model.save(tmp_path / "ours.keras")
        theirs = keras.models.load_model(tmp_path / "ours.keras")
        got = np.asarray(theirs(inputs_for(build)))
        np.testing.assert_allclose(got, expected, atol=2e-6)
        theirs.save(tmp_path / "theirs.keras")
        again = tg.load_model(tmp_path / "theirs.keras")
        assert same_weights(model, again)
        assert np.array_equal(predict(again, build), expected)
        assert again.get_config() == model.get_config()

    def test_from_keras(self, keras, build, tmp_path):
        theirs = keras.Sequential(build(keras))
        random = np.random.default_rng(2)
        theirs.set_weights([random.normal(size=w.shape) * 0.4 for w in theirs.get_weights()])
        theirs.save(tmp_path / "model.keras")
        theirs.save_weights(tmp_path / "model.weights.h5")
        model = tg.load_model(tmp_path / "model.keras")
        expected = np.asarray(theirs(inputs_for(build)))
        np.testing.assert_allclose(predict(model, build), expected, atol=2e-6)
        fresh = model_of(build)
        fresh.load_weights(tmp_path / "model.weights.h5")
        assert same_weights(fresh, model)

    def test_weights_to_keras(self, keras, build, tmp_path):
        model = model_of(build)
        model.save_weights(tmp_path / "model.weights.h5")
        theirs = keras.Sequential(build(keras))
        theirs.load_weights(tmp_path / "model.weights.h5")
        assert same_weights(model, theirs)

    def test_same_layout(self, keras, build, tmp_path):
        """The same members, groups, attributes and configuration as Keras writes."""
        keras.utils.clear_session()
        tg.utils.clear_session()
        theirs, ours = keras.Sequential(build(keras)), tg.Sequential(build(tg))
        theirs.save(tmp_path / "theirs.keras")
        ours.save(tmp_path / "ours.keras")
        a, b = (layout(tmp_path / name) for name in ("theirs.keras", "ours.keras"))
        assert a["members"] == b["members"]
        assert a["groups"] == b["groups"]
        assert a["config"] == b["config"]


def layout(path):
    def plain(value):
        if isinstance(value, dict):
            # Numbers of Keras's process, and a build that creates nothing.
            dropped = {"shared_object_id", *(["build_config"] if is_flatten(value) else [])}
            empty = ("compile_config", {})  # of a model inside a model
            return {k: plain(v) for k, v in value.items() if k not in dropped and (k, v) != empty}
        return [plain(item) for item in value] if isinstance(value, list) else value

    def is_flatten(value):
        return value.get("class_name") == "Flatten"

    groups = {}

    def visit(name, node):
        is_data = isinstance(node, h5py.Dataset)
        groups[name] = (dict(node.attrs), (node.shape, str(node.dtype)) if is_data else None)

    with zipfile.ZipFile(path) as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(visit)
        return {
            "members": [(info.filename, info.compress_type) for info in archive.infolist()],
            "groups": groups,
            "config": plain(json.loads(archive.read("config.json"))),
        }


OPTIMIZERS = {
    "adam": lambda k: k.optimizers.Adam(0.01, clipnorm=1.0),
    "amsgrad": lambda k: k.optimizers.Adam(0.01, amsgrad=True),
    "sgd": lambda k: k.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda k: k.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "nadam": lambda k: k.optimizers.Nadam(0.01),
    "schedule": lambda k: k.optimizers.AdamW(
        k.optimizers.schedules.ExponentialDecay(0.05, 3, 0.7), weight_decay=0.01
    ),
    "average": lambda k: k.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9),
}


def small(k, optimizer):
    model = k.Sequential([k.layers.Input((5, 2)), k.layers.LSTM(4), k.layers.Dense(1)])
    metrics = ["mae", k.metrics.MeanSquaredError(name="squared")]
    model.compile(optimizer=OPTIMIZERS[optimizer](k), loss=k.losses.Huber(), metrics=metrics)
    return model


def train(model, epochs):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12, 5, 2)).astype("f"), random.normal(size=(12, 1)).astype("f")
    history = model.fit(x, y, epochs=epochs, batch_size=4, shuffle=False, verbose=0)
    return history.history["loss"]


class TestTrainingResumes:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_here(self, optimizer, tmp_path):
        model = small(tg, optimizer)
        train(model, 2)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        weights_only = small(tg, optimizer)
        train(weights_only, 1)  # so that it has slots to fill
        weights_only.load_weights(tmp_path / "model.weights.h5")
        expected = train(model, 2)
        resumed = tg.load_model(tmp_path / "model.keras")
        assert resumed.get_compile_config() == model.get_compile_config()
        assert train(resumed, 2) == expected
        assert train(weights_only, 2) == expected

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_same_variables_as_keras(self, keras, optimizer):
        """Order, names and shapes of the state, which is what the files rely on."""
        states = []
        for package in (keras, tg):
            package.utils.clear_session()
            model = small(package, optimizer)
            model.optimizer.build(model.trainable_variables)
            variables = model.optimizer.variables
            # Scalars but the first two are not named alike: Nadam's product is "variable" there.
            states.append([(v.path if v.shape else "", tuple(v.shape)) for v in variables])
        assert states[0] == states[1]

    def test_with_keras(self, tmp_path):
        """Training goes on from a file the same on both sides; this file is the program."""
        for package in ("keras", "jax"):
            pytest.importorskip(package, reason=f"{package} is not installed")
        environment = {**os.environ, "KERAS_BACKEND": "jax"}
        done = subprocess.run(
            [sys.executable, __file__, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]


def train_on_both_sides(folder):
    """Keras trains and saves, both go on; tidegate saves, both go on: the same losses."""
    import keras

    for optimizer in ("adam", "rmsprop", "schedule"):
        theirs = small(keras, optimizer)
        train(theirs, 2)
        theirs.save(folder / "theirs.keras")
        theirs.save(folder / "theirs.h5")
        ours, from_legacy = (tg.load_model(folder / name) for name in ("theirs.keras", "theirs.h5"))
        expected = train(theirs, 2)
        np.testing.assert_allclose(train(ours, 2), expected, rtol=2e-5)
        np.testing.assert_allclose(train(from_legacy, 2), expected, rtol=2e-5)
        ours.save(folder / "ours.keras")
        theirs = keras.models.load_model(folder / "ours.keras")
        np.testing.assert_allclose(train(ours, 2), train(theirs, 2), rtol=2e-5)


class TestKerasFiles:
    def test_unbuilt_model(self, tmp_path):
        model = tg.Sequential([tg.layers.LSTM(3), tg.layers.Dense(1)])
        with pytest.warns(UserWarning, match="not yet been built"):
            model.save(tmp_path / "model.keras")
        loaded = tg.load_model(tmp_path / "model.keras")
        assert not loaded.built
        assert [type(layer).__name__ for layer in loaded.layers] == ["LSTM", "Dense"]
        for call in (model.save_weights, model.load_weights):
            (tmp_path / "x.weights.h5").touch()
            with pytest.raises(ValueError, match="not yet been built"):
                call(tmp_path / "x.weights.h5")

    def test_compile_false(self, tmp_path):
        model = small(tg, "adam")
        model.save(tmp_path / "model.keras")
        assert tg.load_model(tmp_path / "model.keras", compile=False).optimizer is None

    def test_functional_chain(self, keras, tmp_path):
        inputs = keras.layers.Input((6, 3))
        hidden = keras.layers.LSTM(4, return_sequences=True, name="a")(inputs)
        outputs = keras.layers.Dense(2, name="b")(keras.layers.Flatten()(hidden))
        theirs = keras.Model(inputs, outputs)
        theirs.save(tmp_path / "chain.keras")
        model = tg.load_model(tmp_path / "chain.keras")
        expected = np.asarray(theirs(inputs_for(stacked)))
        np.testing.assert_allclose(predict(model, stacked), expected, atol=2e-6)
        branches = keras.layers.Concatenate()([outputs, keras.layers.LSTM(2)(hidden)])
        keras.Model(inputs, branches).save(tmp_path / "branches.keras")
        with pytest.raises(ValueError, match=r"in one chain|unknown layer"):
            tg.load_model(tmp_path / "branches.keras")
        keras.Model(inputs, [outputs, hidden]).save(tmp_path / "two.keras")
        with pytest.raises(ValueError, match="the last layer 'b' as the output"):
            tg.load_model(tmp_path / "two.keras")

    @pytest.mark.parametrize(
        "build, name",
        [
            (dual_state, r"layer 'dual_state_gru\w*' \(DualStateGRU\)"),
            (coupled, r"layer 'coupled_lstm\w*' \(CoupledLSTM\)"),
            (coupled_cell, r"layer 'coupled_lstm_cell\w*' \(CoupledLSTMCell\)"),
        ],
    )
    def test_own_layers_are_refused_by_name(self, build, name, tmp_path):
        model = model_of(build)
        with pytest.raises(ValueError, match=name):
            model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        again = model_of(build, seed=2)
        again.load_weights(tmp_path / "model.weights.h5")
        assert same_weights(model, again)

    def test_own_activations_are_refused_by_name(self, tmp_path):
        hard = tg.Sequential([tg.layers.Input((3,)), tg.layers.Dense(2, "hard_sigmoid_keras2")])
        with pytest.raises(ValueError, match=r"\(Dense\).*'hard_sigmoid_keras2'"):
            hard.save(tmp_path / "model.keras")
        assert not (tmp_path / "model.keras").exists()

    def test_custom_layer(self, tmp_path):
        class Scale(tg.layers.Layer):
            def __init__(self, start=1.0, **kwargs):
                super().__init__(**kwargs)
                self.start = start
                self.inner = tg.layers.Dense(3)

            def build(self, input_shape):
                self.scale = self.add_weight((input_shape[-1],), "random_normal", name="scale")
                self.inner.build(input_shape)

            def call(self, inputs):
                return self.inner(inputs * np.asarray(self.scale))

            def get_config(self):
                return {**super().get_config(), "start": self.start}

        model = tg.Sequential([tg.layers.Input((6, 3)), tg.layers.LSTM(4), Scale(2.0)])
        model.save(tmp_path / "model.keras")
        with pytest.raises(ValueError, match="unknown layer 'Scale'"):
            tg.load_model(tmp_path / "model.keras")
        again = tg.load_model(tmp_path / "model.keras", custom_objects={"Scale": Scale})
        assert again.layers[1].start == 2.0
        assert same_weights(model, again)
        assert np.array_equal(predict(model, stacked), predict(again, stacked))

    def test_weights_that_do_not_fit(self, tmp_path):
        model = model_of(stacked)
        model.save_weights(tmp_path / "model.weights.h5")
        other = tg.Sequential([*stacked(tg)[:-1], tg.layers.Dense(7)])
        before = other.get_weights()
        with pytest.raises(ValueError, match="1 objects could not be loaded"):
            other.load_weights(tmp_path / "model.weights.h5")
        assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))
        with pytest.warns(UserWarning, match="1 objects could not be loaded"):
            other.load_weights(tmp_path / "model.weights.h5", skip_mismatch=True)
        assert np.array_equal(other.get_weights()[0], model.get_weights()[0])
        shorter = tg.Sequential(stacked(tg)[:-1])
        with pytest.raises(ValueError, match="layers/dense has weights"):
            shorter.load_weights(tmp_path / "model.weights.h5")

    @pytest.mark.parametrize(
        "name, message",
        [
            ("model.h5", "Legacy `.h5` files are read but not written"),
            ("model.weights.h5", "holds weights only"),
            ("model", "Invalid filepath extension for saving"),
        ],
    )
    def test_extensions(self, tmp_path, name, message):
        model = model_of(stacked)
        with pytest.raises(ValueError, match=message):
            model.save(tmp_path / name)
        with pytest.raises(ValueError, match=r"must end in `\.weights\.h5`"):
            model.save_weights(tmp_path / "model.h5")
        (tmp_path / "model.txt").touch()
        for load in (tg.load_model, model.load_weights):
            with pytest.raises(ValueError, match="File format not supported"):
                load(tmp_path / "model.txt")
            with pytest.raises(FileNotFoundError, match="File not found"):
                load(tmp_path / "none.keras")
        (tmp_path / "model.keras").touch()
        with pytest.raises(ValueError, match="by_name"):
            saving.load_weights(model, tmp_path / "model.keras", by_name=True)


# -------------------------------------------------------------------------- unknown in a file
def edited(source, target, edit):
    """Copy a `.keras` file with its config.json changed."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    edit(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


def layer_config(config, index):
    return config["config"]["layers"][index]["config"]


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}
FOREIGN = {"module": "os", "class_name": "system", "config": {}, "registered_name": None}


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda c: c["config"]["layers"][1].update(class_name="LSTM2"), "unknown layer 'LSTM2'"),
        (lambda c: c["config"]["layers"][1].update(module="os"), "of module 'os'"),
        (lambda c: c["config"]["layers"][1].update(registered_name="my>LSTM"), "'my>LSTM'"),
        (lambda c: layer_config(c, 1).update(peephole=True), r"'first' \(LSTM\).*peephole"),
        (lambda c: layer_config(c, 1).update(activation="wavelet"), r"'first' \(LSTM\).*wavelet"),
        (lambda c: layer_config(c, 1).update(activation=LAMBDA), "refusing a lambda"),
        (lambda c: layer_config(c, 1).update(kernel_initializer=FOREIGN), "'system' of"),
        (lambda c: layer_config(c, 1).update(dtype="mixed_float16"), "got 'mixed_float16'"),
        (lambda c: layer_config(c, 4).update(quantization_config={"a": 1}), "quantization_config"),
        (lambda c: layer_config(c, 1).update(time_major=True), "expected time_major to be False"),
        (lambda c: layer_config(c, 1).update(units=10**9), "expected weight 'kernel' of shape"),
        (lambda c: layer_config(c, 1).update(units="5"), "expected units to be a positive"),
        (lambda c: layer_config(c, 1).update(units=True), "expected units to be a positive"),
        (lambda c: layer_config(c, 0).update(batch_shape=[None, 6, 10**9]), "of shape"),
        (lambda c: layer_config(c, 0).update(batch_shape=[None, 6, -3]), "expected a shape"),
        (lambda c: layer_config(c, 0).update(sparse=True), "expected sparse to be False"),
        (lambda c: c["config"]["layers"].pop(), "layers/dense has weights"),
        (lambda c: c["config"]["layers"].append(c["config"]["layers"][4]), "found none"),
        (lambda c: c["config"].update(layers=3), "expected a list of layers"),
        (lambda c: c.update(class_name="Functional2"), "expected a Sequential model"),
        (lambda c: c.update(config=[]), "expected an object with class_name"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_named(tmp_path, edit, message):
    model_of(stacked).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=message):
        tg.load_model(edited(tmp_path / "model.keras", tmp_path / "edited.keras", edit))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("optimizer", {**FOREIGN, "class_name": "Popen"}, "'Popen' of module 'os'"),
        ("optimizer", "adamantium", "adamantium.*compile=False"),
        ("loss", LAMBDA, "refusing a lambda"),
        ("metrics", ["mae", "beauty"], "beauty.*compile=False"),
        ("surprise", 1, "surprise"),
    ],
)
def test_unknown_training_is_named(tmp_path, key, value, message):
    small(tg, "adam").save(tmp_path / "model.keras")
    path = edited(
        tmp_path / "model.keras",
        tmp_path / "edited.keras",
        lambda config: config["compile_config"].update({key: value}),
    )
    with pytest.raises(ValueError, match=message):
        tg.load_model(path)
    assert tg.load_model(path, compile=False).built


# ------------------------------------------------------------------------------ damaged files
def keras_with(path, **members):
    """Write a sound `.keras` file whose members can be replaced (None: left out)."""
    sound = path.with_name("sound.keras")
    model_of(stacked).save(sound)
    with zipfile.ZipFile(sound) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {name.replace("_", "."): data for name, data in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def weights_file(path, change):
    """Write a sound weights file of `stacked`, then let `change` work on it."""
    model_of(stacked).save_weights(path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


KERNEL = "layers/lstm/cell/vars/0"


def replaced(**arguments):
    """Replace a dataset by another, as `create_dataset` makes it."""

    def change(file):
        del file[KERNEL]
        file.create_dataset(KERNEL, **arguments)

    return change


def linked(link):
    def change(file):
        del file[KERNEL]
        file[KERNEL] = link

    return change


def virtual(file):
    del file[KERNEL]
    source = h5py.VirtualSource("other.h5", "x", shape=(3, 20))
    map_ = h5py.VirtualLayout(shape=(3, 20), dtype="f")
    map_[:] = source
    file.create_virtual_dataset(KERNEL, map_)


def group_link(file):
    file.move("layers/lstm", "elsewhere")
    file["layers/lstm"] = h5py.SoftLink("/elsewhere")


@pytest.mark.parametrize(
    "change, message",
    [
        (linked(h5py.SoftLink("/layers/lstm/cell/vars/1")), "refusing the SoftLink"),
        (linked(h5py.ExternalLink("/etc/passwd", "/")), "refusing the ExternalLink"),
        (group_link, "refusing the SoftLink"),
        (virtual, "virtual dataset"),
        (replaced(shape=(3, 20), dtype="f", external=[("/etc/passwd", 0, 240)]), "another file"),
        (replaced(shape=(3, 20), dtype="f", chunks=(3, 20)), "shape bomb"),
        (replaced(shape=(1 << 20, 1 << 20), dtype="f", chunks=(1, 1 << 20), compression="gzip"),
         "of shape"),
        (replaced(data=np.full((3, 20), "x", dtype=h5py.string_dtype())), "expected numbers"),
        (replaced(data=np.zeros((3, 20), [("a", "f")])), "expected numbers"),
        (replaced(data=np.zeros((3, 20), "c8")), "expected numbers"),
        (replaced(data=h5py.Empty("f")), "of shape|empty"),
        (replaced(data=np.zeros((3, 21), "f")), "of shape"),
        (lambda file: file.pop(KERNEL), "expected 3 variables, but received 2"),
        (lambda file: file.create_dataset(f"{KERNEL[:-1]}3", data=1.0), "3 variables, but"),
        (lambda file: (file.pop(KERNEL), file.create_group(KERNEL)), "got|dataset|group"),
    ],
    ids=["soft", "external_link", "group", "virtual", "external", "unwritten", "bomb", "strings",
         "compound", "complex", "empty", "shape", "missing", "superfluous", "group_for_data"],
)  # fmt: skip
def test_hostile_weights(tmp_path, change, message):
    path = weights_file(tmp_path / "model.weights.h5", change)
    with pytest.raises(ValueError, match=message):
        model_of(stacked).load_weights(path)
    keras_file = keras_with(tmp_path / "model.keras", model_weights_h5=None)
    with zipfile.ZipFile(keras_file, "a") as archive:
        archive.write(path, "model.weights.h5")
    with pytest.raises(ValueError):
        tg.load_model(keras_file)


def test_groups_that_contain_themselves(tmp_path):
    def change(file):
        file["layers/loop"] = file["layers"]

    path = weights_file(tmp_path / "model.weights.h5", change)
    with pytest.raises(ValueError, match="layers/loop has weights"):
        model_of(stacked).load_weights(path)
    assert saving.info(path)["parameters"] > 0


def test_states_are_bounded_by_the_file(tmp_path):
    model_of(flat).save(tmp_path / "model.keras")
    model_of(flat).save(tmp_path / "model.safetensors")
    shape = [10**8, 6, 3]
    path = edited(
        tmp_path / "model.keras",
        tmp_path / "edited.keras",
        lambda config: layer_config(config, 0).update(batch_shape=shape),
    )
    with pytest.raises(ValueError, match="batch size in proportion"):
        tg.load_model(path)
    path = rewritten(
        tmp_path / "model.safetensors",
        tmp_path / "edited.safetensors",
        lambda description: description["model"].update(batch_input_shape=shape),
    )
    with pytest.raises(ValueError, match="batch size in proportion"):
        tg.load_model(path)


def test_declared_sizes_are_bounded_by_the_file(tmp_path):
    """A reader refuses before it allocates: what a file declares, over what it stores."""
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (1 << 17, 1 << 17), "f", chunks=(1, 1 << 17),
                                   compression="gzip")  # fmt: skip
        data[0] = 0
        file.create_dataset("ok", data=np.zeros(1000), compression="gzip")
    with files.Hdf5Reader.from_path(path) as reader:
        assert reader.array(reader.root, "ok").shape == (1000,)
        with pytest.raises(ValueError, match="shape bomb"):
            reader.array(reader.root, "x")


class TestDamagedArchives:
    def test_every_truncation(self, tmp_path):
        data = keras_with(tmp_path / "model.keras").read_bytes()
        for size in [0, 1, 4, *range(30, len(data), len(data) // 60), len(data) - 1]:
            (tmp_path / "cut.keras").write_bytes(data[:size])
            with pytest.raises(ValueError):
                tg.load_model(tmp_path / "cut.keras")

    def test_every_truncation_of_weights(self, tmp_path):
        model = model_of(stacked)
        model.save_weights(tmp_path / "model.weights.h5")
        data = (tmp_path / "model.weights.h5").read_bytes()
        for size in [0, 1, *range(30, len(data), len(data) // 60), len(data) - 1]:
            (tmp_path / "cut.weights.h5").write_bytes(data[:size])
            with pytest.raises(ValueError):
                model.load_weights(tmp_path / "cut.weights.h5")

    @pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "model.safetensors"])
    def test_flipped_bytes(self, tmp_path, name):
        """Either refused with a ValueError or, where a weight was hit, read; nothing else."""
        model = model_of(stacked)
        path = tmp_path / name
        model.save_weights(path) if name.endswith(".h5") else model.save(path)
        data = path.read_bytes()
        random = np.random.default_rng(0)
        for position in random.integers(0, len(data), 150):
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
            with contextlib.suppress(ValueError):
                model.load_weights(path) if name.endswith(".h5") else tg.load_model(path)

    def test_zip_bomb(self, tmp_path):
        path = keras_with(tmp_path / "m.keras", model_weights_h5=bytes(200 << 20))
        assert path.stat().st_size < 1 << 20
        with pytest.raises(ValueError, match="decompression bomb"):
            tg.load_model(path)

    def test_json_bombs(self, tmp_path):
        for data in (b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1, "a": 2}', b"\xff\xfe", b"[]"):
            path = keras_with(tmp_path / "model.keras", config_json=data)
            with pytest.raises(ValueError, match=r"config\.json: expected a JSON object"):
                tg.load_model(path)

    def test_missing_members(self, tmp_path):
        for member in ("config_json", "model_weights_h5"):
            with pytest.raises(ValueError, match="expected a member"):
                tg.load_model(keras_with(tmp_path / "model.keras", **{member: None}))

    def test_paths_in_member_names_go_nowhere(self, tmp_path):
        path = keras_with(tmp_path / "model.keras")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../outside.txt", "x")
            archive.writestr("/tmp/tidegate_outside.txt", "x")
        before = set(tmp_path.iterdir())
        tg.load_model(path)
        assert set(tmp_path.iterdir()) == before
        assert not (tmp_path.parent / "outside.txt").exists()

    def test_no_archive(self, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"not a zip archive")
        with pytest.raises(ValueError, match="expected a zip archive"):
            tg.load_model(tmp_path / "model.keras")
        (tmp_path / "model.h5").write_bytes(b"not HDF5")
        with pytest.raises(ValueError, match="expected an HDF5 file"):
            tg.load_model(tmp_path / "model.h5")


# --------------------------------------------------------------------------- atomic writing
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "model.safetensors"])
class TestAtomicWriting:
    def write(self, model, path):
        model.save_weights(path) if path.name.endswith(".h5") else model.save(path)

    def test_old_file_stays_when_writing_fails(self, name, tmp_path, monkeypatch):
        path = tmp_path / name
        self.write(model_of(stacked), path)
        before = path.read_bytes()

        def fail(*_):
            raise OSError("No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            self.write(model_of(stacked, seed=2), path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == [name]

    def test_mode_and_links(self, name, tmp_path):
        (tmp_path / "real").mkdir()
        real, link = tmp_path / "real" / name, tmp_path / name
        link.symlink_to(real)
        self.write(model_of(stacked), link)
        mask = os.umask(0)
        os.umask(mask)
        assert link.is_symlink()
        assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~mask
        real.chmod(0o640)
        self.write(model_of(stacked), link)
        assert stat.S_IMODE(real.stat().st_mode) == 0o640

    def test_overwrite_false(self, name, tmp_path):
        model = model_of(stacked)
        self.write(model, tmp_path / name)
        save = saving.save_weights if name.endswith(".h5") else saving.save_model
        with pytest.raises(ValueError, match="overwrite=False"):
            save(model, tmp_path / name, overwrite=False)
        with pytest.raises(FileNotFoundError):
            self.write(model, tmp_path / "no such folder" / name)


# ----------------------------------------------------------------------------------- legacy
class TestLegacy:
    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls):
        with np.load(KERAS2 / "expected.npz") as file:
            return dict(file)

    @pytest.mark.parametrize("file", ["compiled.h5", "masked.h5", "cudnn.h5", "functional.keras"])
    def test_keras_2(self, expected, file):
        """Files written by Keras 2 (see data/keras2/generate.py) give Keras 2's predictions."""
        name = file.split(".")[0]
        model = tg.load_model(KERAS2 / file, compile=False)
        got = model.predict(expected[f"{name}.x"], verbose=0)
        np.testing.assert_allclose(got, expected[f"{name}.y"], atol=2e-6)

    def test_keras_2_12(self, tmp_path):
        """The oldest `.keras`, whose groups are numbered in another way."""
        with np.load(KERAS2 / "oldest.npz") as file:
            x, y = file["x"], file["y"]
        model = tg.load_model(KERAS2 / "oldest.keras")
        np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=2e-6)
        with zipfile.ZipFile(KERAS2 / "oldest.keras") as archive:
            data = archive.read("model.weights.h5")
        (tmp_path / "old.weights.h5").write_bytes(data)
        again = tg.Sequential.from_config(model.get_config())
        again.load_weights(tmp_path / "old.weights.h5")
        assert same_weights(model, again)

    def test_keras_2_training(self):
        with pytest.warns(UserWarning, match="starts afresh"):
            model = tg.load_model(KERAS2 / "compiled.h5")
        assert type(model.optimizer).__name__ == "Adam"
        config = model.get_compile_config()
        assert config["metrics"] == ["mean_absolute_error", "accuracy"]
        assert config["loss"]["class_name"] == "MeanSquaredError"
        assert model.layers[0].get_config()["recurrent_activation"] == "hard_sigmoid_keras2"
        assert model.layers[1].get_config()["reset_after"] is False

    def test_weights_by_order_and_by_name(self, expected):
        source = tg.load_model(KERAS2 / "cudnn.h5")
        layers = [
            tg.layers.Input((5, 4)),
            tg.layers.LSTM(6, return_sequences=True, name="lstm"),
            tg.layers.Bidirectional(tg.layers.GRU(5, return_sequences=True), name="both"),
        ]
        target = tg.Sequential([*layers, tg.layers.GRU(3), tg.layers.Dense(2)])
        target.load_weights(KERAS2 / "cudnn.h5")
        assert same_weights(source, target)
        partial = tg.Sequential([tg.layers.Input((5, 4)), tg.layers.LSTM(6, name="lstm")])
        saving.load_weights(partial, KERAS2 / "cudnn.h5", by_name=True)
        assert np.array_equal(partial.get_weights()[0], source.get_weights()[0])
        with pytest.raises(ValueError, match="Model expected 1 layers, found 4 saved layers"):
            partial.load_weights(KERAS2 / "cudnn.h5")
        old = tg.Sequential(
            [tg.layers.Input((5, 10)), tg.layers.GRU(3, reset_after=False, name="gru")]
        )
        with pytest.raises(ValueError, match="reset_after=False, got a CuDNNGRU's"):
            saving.load_weights(old, KERAS2 / "cudnn.h5", by_name=True)

    def test_legacy_file_under_the_new_name(self, expected, tmp_path):
        with (
            h5py.File(KERAS2 / "cudnn.h5") as old,
            h5py.File(tmp_path / "a.weights.h5", "w") as new,
        ):
            for name in old["model_weights"]:
                old.copy(old["model_weights"][name], new, name)
            new.attrs["layer_names"] = old["model_weights"].attrs["layer_names"]
        source = tg.load_model(KERAS2 / "cudnn.h5")
        target = tg.Sequential.from_config(source.get_config())
        target.load_weights(tmp_path / "a.weights.h5")
        assert same_weights(source, target)

    def test_cudnn_conversion(self):
        """Gate by gate, from the memory layout that cuDNN documents."""
        features, units = 3, 2
        random = np.random.default_rng(0)
        for name, gates in (("LSTM", 4), ("GRU", 3)):
            matrices = random.normal(size=(gates, units, features))
            squares = random.normal(size=(gates, units, units))
            stored = [
                np.hstack([m.reshape(features, units) for m in matrices]),
                np.hstack(list(squares)),
                np.arange(2 * gates * units, dtype=float),
            ]
            kernel, recurrent, bias = saving.convert_h5_weights(name, stored)
            assert np.array_equal(kernel, np.hstack([m.T for m in matrices]))
            assert np.array_equal(recurrent, np.hstack([s.T for s in squares]))
            halves = stored[2].reshape(2, -1)
            assert np.array_equal(bias, halves if name == "GRU" else halves.sum(axis=0))
            again = saving.convert_h5_weights(name, [kernel, recurrent, bias])
            assert again[0] is kernel
        with pytest.raises(ValueError, match="expected LSTM or GRU"):
            saving.convert_h5_weights("Dense", [])

    @pytest.mark.filterwarnings("ignore")
    def test_from_keras_3(self, keras, tmp_path):
        lstm = keras.layers.LSTM(2, recurrent_activation="hard_sigmoid")
        theirs = keras.Sequential([keras.layers.Input((6, 3)), lstm])
        theirs.save(tmp_path / "hard.h5")
        ours = tg.load_model(tmp_path / "hard.h5")
        expected = np.asarray(theirs(inputs_for(stacked)))
        np.testing.assert_allclose(predict(ours, stacked), expected, atol=2e-6)

    def test_damage(self, tmp_path):
        data = (KERAS2 / "masked.h5").read_bytes()
        for size in range(0, len(data), len(data) // 50):
            (tmp_path / "cut.h5").write_bytes(data[:size])
            with pytest.raises(ValueError):
                tg.load_model(tmp_path / "cut.h5")
        with h5py.File(tmp_path / "weights.h5", "w") as file:
            file.attrs["layer_names"] = ["a"]
        with pytest.raises(ValueError, match="No model config found"):
            tg.load_model(tmp_path / "weights.h5")
        with pytest.raises(ValueError, match="expected a group for layer 'a'"):
            saving.read_h5_weights(tmp_path / "weights.h5")

    def test_damage_that_hdf5_does_not_survive(self, tmp_path):
        """Texts that declare gigabytes, and texts made sequences, on which HDF5 crashes."""
        data = (KERAS2 / "compiled.h5").read_bytes()
        with h5py.File(KERAS2 / "compiled.h5") as file:
            length = struct.pack("<I", len(file.attrs["model_config"].encode()))
        damages = [
            (length, struct.pack("<I", 0xA0000000), "'model_config' declares 2684354560 bytes"),
            (b"\x19\x01\x01\x00", b"\x19\x00\x01\x00", "expected text"),
        ]
        for sound, damaged, message in damages:
            assert sound in data
            (tmp_path / "damaged.h5").write_bytes(data.replace(sound, damaged))
            with pytest.raises(ValueError, match=message):
                tg.load_model(tmp_path / "damaged.h5")

    def test_old_details(self, tmp_path):
        """The bare list of layers, `lr` and `decay`, attributes as bytes, names in pieces."""
        dense = {
            "name": "dense_1", "trainable": True, "units": 1, "activation": "linear",
            "use_bias": True, "batch_input_shape": [None, 2], "dtype": "float32",
            "kernel_initializer": {"class_name": "VarianceScaling", "config": {
                "scale": 1.0, "mode": "fan_avg", "distribution": "normal", "seed": None}},
            "activity_regularizer": None,
        }  # fmt: skip
        training = {
            "optimizer_config": {"class_name": "SGD", "config": {"lr": 0.5, "decay": 0.25,
                                 "momentum": 0.0, "nesterov": False}},
            "loss": "mean_squared_error", "metrics": ["accuracy"], "sample_weight_mode": None,
            "loss_weights": None,
        }  # fmt: skip
        model = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": dense}]}
        with h5py.File(tmp_path / "old.h5", "w") as file:
            file.attrs["keras_version"] = b"2.1.6"
            file.attrs["model_config"] = json.dumps(model).encode()
            file.attrs["training_config"] = json.dumps(training).encode()
            weights = file.create_group("model_weights")
            weights.attrs["layer_names0"] = [b"dense_1"]
            group = weights.create_group("dense_1")
            group.attrs["weight_names0"] = [b"dense_1/kernel:0"]
            group.attrs["weight_names1"] = [b"dense_1/bias:0"]
            group["dense_1/kernel:0"] = np.array([[1.0], [2.0]], "f")
            group["dense_1/bias:0"] = np.array([3.0], "f")
        model = tg.load_model(tmp_path / "old.h5")
        assert model.predict(np.array([[1.0, 1.0]]), verbose=0) == 6.0
        schedule = model.optimizer.get_config()["learning_rate"]
        assert schedule["class_name"] == "InverseTimeDecay"
        assert schedule["config"]["decay_rate"] == 0.25


# ------------------------------------------------------------------------------- deployment
def header_of(path):
    data = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def rewritten(source, target, edit=None, edit_header=None):
    """Copy a deployment file with its description or header changed."""
    header, data = header_of(source)
    description = json.loads(header["__metadata__"]["tidegate"])
    if edit:
        edit(description)
    header["__metadata__"]["tidegate"] = json.dumps(description)
    if edit_header:
        edit_header(header)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return target


def first(description):
    return description["model"]["layers"][0]["config"]


class TestDeployment:
    @pytest.mark.parametrize("build", [*SHARED, dual_state, coupled, coupled_cell, double])
    def test_there_and_back(self, build, tmp_path):
        model = model_of(build)
        expected = predict(model, build)
        model.save(tmp_path / "model.safetensors")
        again = tg.load_model(tmp_path / "model.safetensors")
        assert np.array_equal(predict(again, build), expected)
        again.save(tmp_path / "again.safetensors")
        a, b = header_of(tmp_path / "model.safetensors"), header_of(tmp_path / "again.safetensors")
        assert a[0] == b[0]
        assert a[1] == b[1]

    def test_other_tools_read_it(self, tmp_path):
        from safetensors.numpy import load_file

        model = model_of(stacked)
        model.save(tmp_path / "model.safetensors")
        tensors = load_file(tmp_path / "model.safetensors")
        assert np.array_equal(tensors["layers.0.kernel"], model.get_weights()[0])
        assert set(tensors) == {
            *(f"layers.{n}.{w}" for n in (0, 2) for w in ("kernel", "recurrent_kernel", "bias")),
            *("layers.3.kernel", "layers.3.bias", "test_vector.input", "test_vector.output"),
        }
        header, _ = header_of(tmp_path / "model.safetensors")
        description = json.loads(header["__metadata__"]["tidegate"])
        assert description["model"]["layers"][0] == {
            "class_name": "LSTM",
            "name": "first",
            "config": {
                "units": 5,
                "activation": "tanh",
                "recurrent_activation": "hard_sigmoid",
                "use_bias": True,
                "return_sequences": True,
                "go_backwards": False,
                "stateful": False,
                "zero_output_for_mask": False,
            },
        }

    def test_stateful_model_is_left_alone(self, tmp_path):
        model = model_of(flat)
        model.predict(inputs_for(flat), verbose=0)
        before = [np.array(state) for state in model.layers[0].states]
        model.save(tmp_path / "model.safetensors")
        after = [np.array(state) for state in model.layers[0].states]
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        loaded = tg.load_model(tmp_path / "model.safetensors")
        assert not any(np.any(np.array(state)) for state in loaded.layers[0].states)

    @pytest.mark.parametrize(
        "layers, message",
        [
            (lambda k: [k.Input((6, 3)), k.LSTM(2, return_state=True)], "return_state"),
            (
                lambda k: [k.Input((6, 3)), k.Bidirectional(k.LSTM(2), merge_mode=None)],
                "merge_mode",
            ),
            (lambda k: [k.Input((3,)), k.Dense(2, activation="squareplus")], "squareplus"),
            (lambda k: [k.Input((3,)), k.Dense(2), k.Dense(2, dtype="float64")], "one dtype"),
        ],
        ids=["return_state", "two_outputs", "activation", "dtypes"],
    )
    def test_models_that_it_cannot_hold(self, tmp_path, layers, message):
        with pytest.raises(ValueError, match=message):
            tg.Sequential(layers(tg.layers)).save(tmp_path / "model.safetensors")
        assert not os.listdir(tmp_path)

    @pytest.mark.parametrize(
        "edit, message",
        [
            (lambda d: d.update(format_version=2), "expected format_version 1, got 2"),
            (lambda d: d.update(extra=1), r"unknown keys \['extra'\]"),
            (lambda d: d.pop("test_vector"), r"missing \['test_vector'\]"),
            (lambda d: d["model"].update(dtype="float16"), "expected dtype"),
            (lambda d: d["model"].update(dtype="float64"), "of dtype|dtype float64"),
            (lambda d: d["model"].update(layers=[]), "expected a list of layers"),
            (lambda d: d["model"]["layers"].pop(), "unknown tensors|expected an output"),
            (lambda d: d["model"].update(batch_input_shape=[None, 6, 0]), "expected a shape"),
            (lambda d: d["model"].update(batch_input_shape=[None, 6, 4]), "expected an input"),
            (lambda d: first(d).update(units=10**12), "expected shape"),
            (lambda d: first(d).update(units=True), "units"),
            (lambda d: first(d).update(use_bias=False), "unknown tensors"),
            (lambda d: first(d).update(activation="softmax"), "activation: expected one of"),
            (lambda d: first(d).update(dropout=0.1), r"unknown keys \['dropout'\]"),
            (lambda d: first(d).pop("go_backwards"), r"missing \['go_backwards'\]"),
            (lambda d: first(d).update(recurrent_activation="sigmoid"), "test vector within"),
            (lambda d: d["model"]["layers"][0].update(class_name="CustomLSTM"), "expected one of"),
            (lambda d: d["model"]["layers"][0].update(class_name="GRU"), "GRU"),
            (lambda d: d["test_vector"].update(tolerance=2.0), "expected a tolerance"),
            (lambda d: d["test_vector"].update(input="layers.0.kernel"), "expected a tensor"),
        ],
    )
    def test_strictness(self, tmp_path, edit, message):
        model_of(stacked).save(tmp_path / "model.safetensors")
        path = rewritten(tmp_path / "model.safetensors", tmp_path / "edited.safetensors", edit)
        with pytest.raises(ValueError, match=message):
            tg.load_model(path)

    def test_damage(self, tmp_path):
        path = tmp_path / "model.safetensors"
        model_of(stacked).save(path)
        data = path.read_bytes()
        for size in [0, 7, 8, *range(100, len(data), len(data) // 60), len(data) - 1]:
            path.write_bytes(data[:size])
            with pytest.raises(ValueError):
                tg.load_model(path)
        path.write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
        with pytest.raises(ValueError, match="expected a safetensors file"):
            tg.load_model(path)
        path.write_bytes(data)
        rewritten(path, path, edit_header=lambda header: header.pop("__metadata__"))
        with pytest.raises(ValueError, match="tensors without a model"):
            tg.load_model(path)

    def test_a_wrong_weight_is_noticed(self, tmp_path):
        path = tmp_path / "model.safetensors"
        model_of(stacked).save(path)
        header, data = header_of(path)
        start = header["layers.0.kernel"]["data_offsets"][0]
        position = len(path.read_bytes()) - len(data) + start + 3
        damaged = bytearray(path.read_bytes())
        damaged[position] ^= 0x80  # the sign of the first weight
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="the file is damaged"):
            tg.load_model(path)


def test_every_activation_is_specified():
    """The list in the format is that of the engine, and the document names every one."""
    from tidegate import activations
    from tidegate.saving.safetensors import ACTIVATIONS

    assert set(activations._ENGINE) | {"softmax", "log_softmax"} == ACTIVATIONS
    document = Path(__file__).parent.parent / "docs" / "file-format.md"
    text = document.read_text()
    assert all(f"`{name}`" in text for name in ACTIVATIONS)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "model.safetensors"])
def test_info(name, tmp_path):
    model = model_of(stacked)
    path = tmp_path / name
    model.save_weights(path) if name.endswith(".h5") else model.save(path)
    result = saving.info(path)
    assert result["parameters"] == model.count_params()
    assert result["bytes"] == path.stat().st_size
    if name != "model.weights.h5":
        assert {"class_name": "LSTM", "name": "first"} in result["layers"]
    assert saving.info(KERAS2 / "masked.h5")["keras_version"].startswith("2.")
    (tmp_path / "model.txt").touch()
    with pytest.raises(ValueError, match="File format not supported"):
        saving.info(tmp_path / "model.txt")


if __name__ == "__main__":
    train_on_both_sides(Path(sys.argv[1]))
