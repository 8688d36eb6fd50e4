"""Variables and what is attached to them: initializers, regularizers, constraints; seeds and names.

Random streams are no contract: distributions and limits are compared with their definitions.
"""

import copy
import math
import os
import pickle
import random

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")
import keras

from tidegate import constraints, initializers, regularizers, utils
from tidegate.variables import Variable

# ---- Variable ------------------------------------------------------------------------------------


def test_a_variable_changes_only_where_it_is_counted():
    variable = Variable(np.arange(6.0).reshape(2, 3), "kernel", path="model/dense/kernel")
    assert (variable.shape, variable.dtype, variable.version) == ((2, 3), np.float64, 0)
    view = variable.value
    for handed_out in (view, np.asarray(variable), variable.numpy(), variable[0]):
        with pytest.raises(ValueError, match="read-only"):
            handed_out[0] = 1
    kept = variable.numpy()
    variable.assign(np.ones((2, 3), "float32"))
    variable.assign_add(1.0)
    variable.assign_sub([0.0, 1.0, 2.0])
    assert variable.version == 3
    np.testing.assert_array_equal(view, [[2, 1, 0], [2, 1, 0]])
    np.testing.assert_array_equal(kept, np.arange(6.0).reshape(2, 3))
    with pytest.raises(
        ValueError, match=r"'model/dense/kernel': expected a value of shape \(2, 3\)"
    ):
        variable.assign(np.ones(3))
    with pytest.raises(TypeError, match="expected a change through assign"):
        variable += 1
    assert variable.version == 3


def test_a_variable_stands_for_its_value_in_expressions():
    kernel = Variable([[1, 2], [3, 4]])
    assert kernel.dtype == np.float32
    x = np.ones((1, 2), "float32")
    np.testing.assert_array_equal(x @ kernel + kernel[0], [[5, 8]])
    np.testing.assert_array_equal(2 * kernel - kernel, kernel.value)
    np.testing.assert_array_equal(np.maximum(kernel, 2), [[2, 2], [3, 4]])
    assert np.array(kernel).flags.writeable
    assert np.asarray(kernel, "float64").dtype == np.float64
    assert (len(kernel), kernel.size, kernel.ndim) == (2, 4, 2)
    assert float(Variable(2.5)) == 2.5
    assert int(Variable(np.int64(3))) == 3
    assert kernel in {kernel}
    with pytest.raises(TypeError, match="expected numeric contents"):
        Variable(np.array(["a"]))


def test_gradients_add_up_and_leave_the_senders_array_alone():
    variable = Variable(np.zeros(3, "float32"))
    sent = np.ones(3)
    variable.add_gradient(sent)
    variable.add_gradient(sent)
    np.testing.assert_array_equal(variable.gradient, [2, 2, 2])
    assert variable.gradient.dtype == np.float32
    np.testing.assert_array_equal(sent, 1)
    with pytest.raises(ValueError, match="expected a gradient of shape"):
        variable.add_gradient(np.ones(4))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copied_variables_are_apart(copied):
    variable = Variable(np.zeros(3, "float32"), constraint=constraints.NonNeg())
    other = copied(variable)
    other.assign(np.ones(3))
    np.testing.assert_array_equal(other.value, 1)
    np.testing.assert_array_equal(variable.value, 0)
    assert not other.value.flags.writeable
    assert isinstance(other.constraint, constraints.NonNeg)


# ---- Initializers --------------------------------------------------------------------------------

FAN_IN, FAN_OUT = 300, 200
TRUNCATION = 0.87962566103423978
# initializer -> its standard deviation and the largest possible value
SPREADS = {
    "RandomNormal": (0.05, math.inf),
    "RandomUniform": (0.05 / math.sqrt(3), 0.05),
    "TruncatedNormal": (0.05 * TRUNCATION, 0.1),
}
for _name, _n, _scale in [
    ("Glorot", (FAN_IN + FAN_OUT) / 2, 1),
    ("Lecun", FAN_IN, 1),
    ("He", FAN_IN, 2),
]:
    _stddev = math.sqrt(_scale / _n)
    SPREADS[f"{_name}Uniform"] = (_stddev, math.sqrt(3) * _stddev)
    SPREADS[f"{_name}Normal"] = (_stddev, 2 * _stddev / TRUNCATION)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SPREADS)
def test_random_initializers_have_their_spread_and_limit(name, dtype):
    stddev, limit = SPREADS[name]
    initializer = getattr(initializers, name)(seed=1)
    values = initializer((FAN_IN, FAN_OUT), dtype)
    assert values.dtype == dtype
    count = values.size
    # Five standard errors of the mean and of the standard deviation.
    assert abs(values.mean()) < 5 * stddev / math.sqrt(count)
    assert values.std() == pytest.approx(stddev, rel=5 / math.sqrt(2 * count))
    assert np.abs(values).max() <= np.nextafter(np.dtype(dtype).type(limit), math.inf)
    if limit < math.inf:
        assert np.abs(values).max() > 0.99 * limit
    np.testing.assert_array_equal(initializer((FAN_IN, FAN_OUT), dtype), values)
    unseeded = getattr(initializers, name)()
    np.testing.assert_array_equal(unseeded((3, 4)), unseeded((3, 4)))
    assert not np.array_equal(unseeded((3, 4)), getattr(initializers, name)()((3, 4)))


@pytest.mark.parametrize(
    ("shape", "mode", "count"),
    [
        ((50, 20), "fan_in", 50),
        ((50, 20), "fan_out", 20),
        ((50, 20), "fan_avg", 35),
        ((7,), "fan_in", 7),
        ((), "fan_in", 1),
        ((3, 3, 8, 16), "fan_in", 72),
        ((3, 3, 8, 16), "fan_out", 144),
    ],
)
def test_variance_scaling_counts_the_fans_as_keras(shape, mode, count):
    arguments = {"scale": 3.0, "mode": mode, "distribution": "uniform", "seed": 1}
    values = initializers.VarianceScaling(**arguments)(shape)
    limit = math.sqrt(9.0 / count)
    assert np.abs(values).max() <= limit * (1 + 1e-7)
    assert values.shape == shape
    if values.size > 100:
        assert np.abs(values).max() > 0.95 * limit
        judged = np.asarray(keras.initializers.VarianceScaling(**arguments)(shape))
        assert np.abs(judged).max() == pytest.approx(np.abs(values).max(), rel=0.05)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (8, 8), (2, 3, 4), (1, 4), (70, 90)])
def test_orthogonal_is_orthonormal(shape):
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-14)):
        values = initializers.Orthogonal(gain=2.0, seed=3)(shape, dtype)
        assert values.dtype == dtype
        assert values.flags.c_contiguous
        matrix = values.reshape(-1, shape[-1]) / 2
        small = matrix @ matrix.T if len(matrix) <= shape[-1] else matrix.T @ matrix
        np.testing.assert_allclose(small, np.eye(len(small)), atol=tolerance)


def test_orthogonal_is_the_q_of_qr():
    """Of all orthonormal matrices the one that its docstring says, which makes it uniform."""
    q, r = np.linalg.qr(np.random.default_rng(3).standard_normal((90, 70)))
    values = initializers.Orthogonal(seed=3)((90, 70), "float64")
    # Both are exact to rounding, which the worst direction of 70 enlarges by its condition.
    assert np.linalg.cond(r) < 100
    np.testing.assert_allclose(values, q * np.sign(np.diag(r)), atol=1e-12)


def test_fixed_initializers():
    np.testing.assert_array_equal(initializers.Zeros()((2, 2)), np.zeros((2, 2)))
    np.testing.assert_array_equal(initializers.get("ones")((2,), "float64"), [1, 1])
    np.testing.assert_array_equal(initializers.Constant(2.5)((2,)), [2.5, 2.5])
    np.testing.assert_array_equal(initializers.Identity(3.0)((2, 3)), 3 * np.eye(2, 3))
    given = initializers.get(np.arange(3))
    np.testing.assert_array_equal(given((3,)), [0, 1, 2])
    assert given((3,)).dtype == np.float32


INITIALIZERS = [
    ("Constant", {"value": 0.5}),
    ("Zeros", {}),
    ("Ones", {}),
    ("Identity", {"gain": 2.0}),
    ("RandomNormal", {"stddev": 0.1, "seed": 1}),
    ("RandomUniform", {"minval": 0.0}),
    ("TruncatedNormal", {"mean": 1.0}),
    ("VarianceScaling", {"mode": "fan_out"}),
    ("GlorotUniform", {}),
    ("GlorotNormal", {"seed": 3}),
    ("HeUniform", {}),
    ("HeNormal", {}),
    ("LecunUniform", {}),
    ("LecunNormal", {}),
    ("Orthogonal", {"gain": 0.5}),
]
REGULARIZERS = [
    ("L1", {"l1": 0.25}),
    ("L2", {}),
    ("L1L2", {"l1": 0.5, "l2": 0.125}),
    ("OrthogonalRegularizer", {"factor": 0.5}),
    ("OrthogonalRegularizer", {"factor": 0.5, "mode": "columns"}),
]
CONSTRAINTS = [
    ("MaxNorm", {}),
    ("MaxNorm", {"max_value": 0.5, "axis": 1}),
    ("NonNeg", {}),
    ("UnitNorm", {"axis": [0, 1]}),
    ("MinMaxNorm", {"min_value": 1.0, "max_value": 1.5, "rate": 0.5}),
]
CONFIGS = [
    *[("initializers", *case) for case in INITIALIZERS],
    *[("regularizers", *case) for case in REGULARIZERS],
    *[("constraints", *case) for case in CONSTRAINTS],
]
MODULES = {
    "initializers": initializers,
    "regularizers": regularizers,
    "constraints": constraints,
}


@pytest.mark.parametrize(("kind", "name", "settings"), CONFIGS, ids=str)
def test_config_is_that_of_keras(kind, name, settings):
    module, judge_module = MODULES[kind], getattr(keras, kind)
    made = getattr(module, name)(**settings)
    judge = getattr(judge_module, name)(**settings)
    written, judged = module.serialize(made), judge_module.serialize(judge)
    if name == "L1":  # Keras rounds this one to float32
        judged["config"]["l1"] = made.l1
    if name == "Identity":  # Keras forgets the gain
        judged["config"]["gain"] = made.gain
    assert written == judged
    assert module.deserialize(written).get_config() == made.get_config()
    assert module.get(written).get_config() == made.get_config()
    assert type(module.get(utils.to_snake_case(name))) is type(made)
    assert type(module.get(name)) is type(made)
    assert type(module.get(type(made))) is type(made)
    assert module.get(made) is made
    assert module.get(None) is None
    for wrong in ("foo", 3, {"class_name": "Foo", "config": {}}, {}):
        with pytest.raises(ValueError, match="Could not interpret"):
            module.get(wrong)
    with pytest.raises(ValueError, match=f" {name}: "):
        module.deserialize({"class_name": name, "config": {"no_such": 1}})


def test_short_names_and_files_with_a_seed_generator():
    for alias, name in [
        ("uniform", "RandomUniform"),
        ("normal", "RandomNormal"),
        ("zero", "Zeros"),
    ]:
        assert type(initializers.get(alias)).__name__ == name
    judge = keras.initializers.HeNormal(seed=keras.random.SeedGenerator(7))
    assert initializers.deserialize(keras.initializers.serialize(judge)).seed == 7

    class Mine(initializers.Initializer):
        def __call__(self, shape, dtype="float32"):
            return np.full(shape, 7, dtype)

    written = initializers.serialize(Mine())
    assert written["registered_name"] == "Mine"
    with pytest.raises(ValueError, match="Could not interpret initializer identifier: Mine"):
        initializers.deserialize(written)
    assert isinstance(initializers.deserialize(written, {"Mine": Mine}), Mine)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.VarianceScaling(scale=0.0), "`scale` must be positive"),
        (lambda: initializers.VarianceScaling(mode="x"), "Invalid `mode`"),
        (lambda: initializers.VarianceScaling(distribution="x"), "Invalid `distribution`"),
        (lambda: initializers.HeNormal(seed="x"), "seed: expected an integer or None"),
        (lambda: initializers.Orthogonal()((3,)), "at least two axes"),
        (lambda: initializers.Identity()((3,)), "two axes"),
        (lambda: initializers.get(np.zeros(3))((4,)), "expected to be asked for the shape"),
        (lambda: regularizers.L2(-1.0), "expected a non-negative float"),
        (lambda: regularizers.L1(math.nan), "expected a non-negative float"),
        (lambda: regularizers.OrthogonalRegularizer(mode="x"), "argument `mode`"),
        (lambda: regularizers.OrthogonalRegularizer()(np.zeros(3)), "must have rank 2"),
        (lambda: utils.set_random_seed(-1), "seed: expected an integer"),
        (lambda: utils.set_random_seed("x"), "seed: expected an integer"),
        (lambda: utils.to_categorical([3], 2), "expected class numbers from 0 to 1"),
        (lambda: utils.to_categorical([]), "num_classes: expected"),
        (lambda: utils.resolve_verbose(3), "verbose: expected"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- Regularizers and constraints ----------------------------------------------------------------


@pytest.mark.parametrize(("name", "settings"), REGULARIZERS, ids=str)
def test_regularizers_equal_those_of_keras_and_have_their_gradient(name, settings):
    x = np.random.default_rng(0).standard_normal((4, 3))
    regularizer = getattr(regularizers, name)(**settings)
    # Keras's mode "columns" fails on NumPy arrays.
    rows = {key: value for key, value in settings.items() if key != "mode"}
    judge = getattr(keras.regularizers, name)(**rows)
    judged = x.T if "mode" in settings else x
    assert regularizer(x) == pytest.approx(float(judge(judged.astype("float32"))), rel=1e-5)
    gradient = regularizer.gradient(x)
    step = 1e-5
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += step
        up = regularizer(moved)
        moved[index] -= 2 * step
        slope = (up - regularizer(moved)) / (2 * step)
        assert gradient[index] == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert regularizer.gradient(x.astype("float32")).dtype == np.float32


@pytest.mark.parametrize(("name", "settings"), CONSTRAINTS, ids=str)
def test_constraints_equal_those_of_keras(name, settings):
    x = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
    x[:, 1] = 0
    mine = getattr(constraints, name)(**settings)(Variable(x))
    judged = np.asarray(getattr(keras.constraints, name)(**settings)(x))
    np.testing.assert_allclose(mine, judged, rtol=1e-6, atol=1e-7)
    assert mine.dtype == np.float32


# ---- Seeds, names, data --------------------------------------------------------------------------


def test_a_seed_repeats_everything():
    draws = []
    for _ in range(2):
        utils.set_random_seed(12)
        draws.append(
            [
                initializers.GlorotUniform()((3, 3)).tolist(),
                utils.make_generator().random(3).tolist(),
                utils.shared_generator().permutation(9).tolist(),
                random.random(),
            ]
        )
    assert draws[0] == draws[1]
    utils.set_random_seed(13)
    assert initializers.GlorotUniform()((3, 3)).tolist() != draws[0][0]
    for seed in (-5, 2**70):  # legal in Keras
        assert utils.make_generator(seed).random() == utils.make_generator(seed).random()


def test_names_are_unique_and_in_snake_case():
    utils.clear_session()
    assert [utils.unique_name("LSTM") for _ in range(3)] == ["lstm", "lstm_1", "lstm_2"]
    assert utils.unique_name("DualStateGRU") == "dual_state_gru"
    utils.clear_session()
    assert utils.unique_name("LSTM") == "lstm"
    for name in ("SimpleRNN", "TimeDistributed", "GRUCell", "RMSprop", "AdamW"):
        assert utils.to_snake_case(name) == keras.src.utils.naming.to_snake_case(name)


@pytest.mark.parametrize("labels", [[0, 2, 1], [[0], [2]], [[0, 1], [2, 2]]])
def test_to_categorical_as_keras(labels):
    for classes in (None, 5):
        mine = utils.to_categorical(labels, classes)
        np.testing.assert_array_equal(mine, keras.utils.to_categorical(labels, classes))
