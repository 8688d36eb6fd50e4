"""Optimizers and schedules: against Keras itself, step by step, from the same gradients."""

import copy
import os
import pickle

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")
import keras

from tidegate import _core, optimizers
from tidegate.optimizers import schedules
from tidegate.variables import Variable

# Keras's own variables on its NumPy back end.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPES = [(3, 8), (2, 8), (8,), (2, 1), (1,)]
NAMES = ["kernel", "recurrent_kernel", "bias", "kernel", "bias"]
STEPS = 6

# Two evaluations of the same float32 formulas differ in roundings: a few ulp of 6e-8 per step. In
# float64 Keras's NumPy back end still rounds the scalars to float32. In 1 - beta_2**t, about
# t / 1000, that is a relative error of 6e-5 / t, half of it in the root, in each step of about
# RATE: 3e-5 * RATE * (1 + 1/2 + ... + 1/STEPS) = 5e-6 in all.
RATE = 0.0625
TOLERANCES = {"float32": dict(rtol=1e-6, atol=1e-6), "float64": dict(rtol=2e-6, atol=6e-6)}

ALGORITHMS = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True}],
    "RMSprop": [{}, {"momentum": 0.5}, {"centered": True}, {"centered": True, "momentum": 0.3}],
    "Adam": [{}, {"amsgrad": True}, {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3}],
    "AdamW": [{}, {"weight_decay": 0.1}],
    "Nadam": [{}, {"beta_1": 0.8, "epsilon": 1e-4}],
    "Adagrad": [{}, {"initial_accumulator_value": 0.3}],
    "Adamax": [{}, {"beta_2": 0.9}],
    "Adadelta": [{}, {"rho": 0.7, "epsilon": 1e-3}],
    "Lion": [{}, {"beta_1": 0.6}],
}
COMMON = [
    {"weight_decay": 0.05},
    {"clipnorm": 0.7},
    {"clipvalue": 0.3},
    {"global_clipnorm": 0.7},
    {"use_ema": True, "ema_momentum": 0.8},
    {"use_ema": True, "ema_overwrite_frequency": 2},
    {"loss_scale_factor": 8.0},
    {"gradient_accumulation_steps": 3},
    {"gradient_accumulation_steps": 2, "clipnorm": 0.5, "weight_decay": 0.1},
]
CASES = [
    *[(name, settings) for name, all_settings in ALGORITHMS.items() for settings in all_settings],
    *[(name, common) for name in ("Adam", "SGD", "Nadam") for common in COMMON],
]


def starts_and_gradients(dtype="float32"):
    rng = np.random.default_rng(5)
    starts = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    gradients = [[rng.standard_normal(s).astype(dtype) for s in SHAPES] for _ in range(STEPS)]
    return starts, gradients


def ours(starts, **kwargs):
    return [
        Variable(value, name, path=f"model/{name}", **kwargs)
        for value, name in zip(starts, NAMES, strict=True)
    ]


def theirs(starts, **kwargs):
    return [
        keras.Variable(value, name=name, dtype=value.dtype.name, **kwargs)
        for value, name in zip(starts, NAMES, strict=True)
    ]


def assert_same(variables, expected, **tolerance):
    assert len(variables) == len(expected)
    for variable, want in zip(variables, expected, strict=True):
        want = np.asarray(want.value)
        np.testing.assert_allclose(variable.value, want, **tolerance, err_msg=variable.path)


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_state_and_config_equal_those_of_keras(name, settings, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("without x64 JAX computes in float32")
    starts, gradients = starts_and_gradients(dtype)
    tolerance = TOLERANCES[dtype]
    mine, reference = ours(starts), theirs(starts)
    optimizer = getattr(optimizers, name)(learning_rate=RATE, name="opt", **settings)
    judge = getattr(keras.optimizers, name)(learning_rate=RATE, name="opt", **settings)
    for step in gradients:
        optimizer.apply(step, mine)
        judge.apply([keras.ops.convert_to_tensor(g) for g in step], reference)
    assert_same(mine, reference, **tolerance)
    assert_same(optimizer.variables, judge.variables, **tolerance)
    assert int(optimizer.variables[0]) == STEPS
    assert optimizer.get_config() == judge.get_config()
    assert list(optimizer.get_config()) == list(judge.get_config())
    assert optimizers.serialize(optimizer) == keras.optimizers.serialize(judge)
    optimizer.finalize_variable_values(mine)
    judge.finalize_variable_values(reference)
    assert_same(mine, reference, **tolerance)


def test_slots_take_the_order_of_keras_files():
    starts, gradients = starts_and_gradients()
    optimizer = optimizers.Adam(amsgrad=True, use_ema=True, gradient_accumulation_steps=2)
    optimizer.apply(gradients[0], ours(starts))
    names = [variable.name for variable in optimizer.variables]
    assert names[:2] == ["iteration", "learning_rate"]
    assert names[2:4] == ["model_kernel_average", "model_recurrent_kernel_average"]
    assert names[7] == "model_kernel_gradient_accumulator"
    assert names[12:15] == [
        *("model_kernel_momentum", "model_kernel_velocity", "model_recurrent_kernel_momentum")
    ]
    assert names[22] == "model_kernel_velocity_hat"
    assert optimizer.variables[0].dtype == np.int64


def test_constraints_and_exclusions_as_keras():
    starts, gradients = starts_and_gradients()
    mine, reference = ours(starts), theirs(starts)
    for variable in (*mine, *reference):
        variable.constraint = lambda w: np.maximum(np.asarray(w), 0)
    optimizer = optimizers.AdamW(RATE, weight_decay=0.5)
    judge = keras.optimizers.AdamW(RATE, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[mine[0]], var_names=["bias"])
    judge.exclude_from_weight_decay(var_list=[reference[0]], var_names=["bias"])
    for step in gradients:
        optimizer.apply_gradients(zip(step, mine, strict=True))
        judge.apply_gradients(zip(step, reference, strict=True))
    assert_same(mine, reference, **TOLERANCES["float32"])
    with pytest.raises(ValueError, match="before the optimizer is"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])


def test_missing_gradients_and_subsets_leave_the_others_alone():
    starts, gradients = starts_and_gradients()
    mine, reference = ours(starts), theirs(starts)
    optimizer, judge = optimizers.Adam(RATE), keras.optimizers.Adam(RATE)
    optimizer.build(mine)
    judge.build(reference)
    holes = [g if i != 1 else None for i, g in enumerate(gradients[0])]
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        optimizer.apply(holes, mine)
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        judge.apply(holes, reference)
    optimizer.apply(gradients[1][2:4], mine[2:4])
    judge.apply(gradients[1][2:4], reference[2:4])
    assert_same(mine, reference, **TOLERANCES["float32"])
    assert_same(optimizer.variables, judge.variables, **TOLERANCES["float32"])


def test_both_dtypes_together_equal_separate_ones():
    rng = np.random.default_rng(1)
    shapes = [(300, 250), (7,), (3, 5)]
    starts = [rng.standard_normal(s).astype(d) for s in shapes for d in ("float32", "float64")]
    together = [Variable(start) for start in starts]
    apart = [Variable(start) for start in starts]
    optimizer = optimizers.Adam()
    singles = [optimizers.Adam() for _ in apart]
    for _ in range(3):
        step = [rng.standard_normal(start.shape).astype(start.dtype) for start in starts]
        optimizer.apply(step, together)
        for single, gradient, variable in zip(singles, step, apart, strict=True):
            single.apply([gradient], [variable])
    for left, right in zip(together, apart, strict=True):
        np.testing.assert_array_equal(left.value, right.value)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", ["Adam", "Nadam", "SGD"])
def test_a_copy_goes_on_alike_and_apart(name, copied):
    starts, gradients = starts_and_gradients()
    variables = ours(starts)
    optimizer = getattr(optimizers, name)(0.01, use_ema=True)
    optimizer.apply(gradients[0], variables)
    twin, twin_variables = copied((optimizer, variables))
    for step in gradients[1:]:
        optimizer.apply(step, variables)
    kept = [variable.numpy() for variable in variables]
    for step in gradients[1:]:
        twin.apply(step, twin_variables)
    for variable, other, before in zip(variables, twin_variables, kept, strict=True):
        np.testing.assert_array_equal(variable.value, other.value)
        np.testing.assert_array_equal(variable.value, before)
    for variable, other in zip(optimizer.variables, twin.variables, strict=True):
        np.testing.assert_array_equal(variable.value, other.value)


def test_state_moves_through_variables():
    starts, gradients = starts_and_gradients()
    first, second = ours(starts), ours(starts)
    optimizer, other = optimizers.Nadam(), optimizers.Nadam()
    other.build(second)
    optimizer.apply(gradients[0], first)
    other.set_weights([variable.value for variable in optimizer.variables])
    for variable, source in zip(second, first, strict=True):
        variable.assign(source)
    optimizer.apply(gradients[1], first)
    other.apply(gradients[1], second)
    for variable, source in zip(second, first, strict=True):
        np.testing.assert_array_equal(variable.value, source.value)


SCHEDULES = [
    ("ExponentialDecay", (0.1, 10, 0.5), {}),
    ("ExponentialDecay", (0.1, 10, 0.5), {"staircase": True}),
    ("InverseTimeDecay", (0.1, 10, 0.5), {}),
    ("InverseTimeDecay", (0.1, 10, 0.5), {"staircase": True}),
    ("PiecewiseConstantDecay", ([3, 7, 20], [1.0, 0.5, 0.25, 0.1]), {}),
    ("PolynomialDecay", (0.1, 10), {"power": 2.0}),
    ("PolynomialDecay", (0.1, 10, 0.01), {"cycle": True}),
    ("CosineDecay", (0.1, 20), {"alpha": 0.1}),
    ("CosineDecay", (0.0, 20), {"warmup_target": 0.1, "warmup_steps": 5}),
    ("CosineDecayRestarts", (0.1, 5), {}),
    ("CosineDecayRestarts", (0.1, 5), {"t_mul": 1.0, "m_mul": 0.9, "alpha": 0.05}),
]


@pytest.mark.parametrize(("name", "arguments", "settings"), SCHEDULES)
def test_schedules_equal_those_of_keras(name, arguments, settings):
    schedule = getattr(schedules, name)(*arguments, **settings)
    judge = getattr(keras.optimizers.schedules, name)(*arguments, **settings)
    for step in [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 14, 19, 20, 21, 30, 34, 36, 100, 1000]:
        # A restart's fraction is a difference of numbers up to `step`: an absolute error.
        assert schedule(step) == pytest.approx(float(judge(step)), rel=1e-6, abs=2e-7)
        assert isinstance(schedule(step), np.float32)
    assert schedules.serialize(schedule) == keras.optimizers.schedules.serialize(judge)
    again = schedules.deserialize(schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()


def test_a_schedule_drives_the_rate_and_survives_the_config():
    starts, gradients = starts_and_gradients()
    variables, reference = ours(starts), theirs(starts)
    optimizer = optimizers.SGD(schedules.ExponentialDecay(0.1, 2, 0.5))
    judge = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5))
    for step in gradients:
        optimizer.apply(step, variables)
        judge.apply(step, reference)
    assert_same(variables, reference, **TOLERANCES["float32"])
    assert float(optimizer.learning_rate) == pytest.approx(0.1 * 0.5 ** (STEPS / 2))
    assert len(optimizer.variables) == 1
    again = optimizers.deserialize(optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    with pytest.raises(TypeError, match="not settable"):
        optimizer.learning_rate = 0.1


def test_the_rate_is_a_variable_that_can_be_set():
    optimizer = optimizers.Adam(0.25)
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate.assign(0.125)
    assert optimizer.get_config()["learning_rate"] == 0.125
    optimizer.learning_rate = schedules.InverseTimeDecay(0.1, 1, 1.0)
    assert [variable.name for variable in optimizer.variables] == ["iteration"]
    assert float(optimizers.SGD(lambda: 0.5).learning_rate) == 0.5


@pytest.mark.parametrize("name", ["adam", "Adam", "ADAM", "rmsprop", "adamw", "sgd", "lion"])
def test_get_by_name(name):
    assert type(optimizers.get(name)).__name__.lower() == name.lower()
    assert type(optimizers.get({"class_name": name, "config": {}})) is type(optimizers.get(name))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.Adam(learning_rate=1), "`learning_rate` should be float"),
        (lambda: optimizers.Adam(decayed=1), r"Argument\(s\) not recognized"),
        (lambda: optimizers.Adam(clipnorm=1.0, clipvalue=1.0), "Only one of `clipnorm`"),
        (lambda: optimizers.Adam(use_ema=True, ema_momentum=2), "`ema_momentum` must be in"),
        (lambda: optimizers.Adam(gradient_accumulation_steps=1), "must be an integer >= 2"),
        (lambda: optimizers.SGD(momentum=2.0), "`momentum` must be a float"),
        (lambda: optimizers.Lion(beta_1=0.0), "`beta_1` must be in"),
        (lambda: optimizers.AdamW(weight_decay=None), "`weight_decay` must be a float"),
        (lambda: optimizers.get("foo"), "Could not interpret optimizer identifier: foo"),
        (lambda: optimizers.get(3), "Could not interpret optimizer identifier: 3"),
        (lambda: schedules.CosineDecay(0.1, 0), "`decay_steps` must be > 0"),
        (lambda: schedules.PiecewiseConstantDecay([1], [1.0]), "should be 1 less"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_gradients_change_nothing():
    starts, gradients = starts_and_gradients()
    variables = ours(starts)
    optimizer = optimizers.Adam()
    wrong = [*gradients[0][:-1], np.zeros((2,), "float32")]
    with pytest.raises(ValueError, match=r"expected a gradient of shape \(1,\)"):
        optimizer.apply(wrong, variables)
    with pytest.raises(ValueError, match="expected a gradient for each of 5"):
        optimizer.apply(gradients[0][:2], variables)
    with pytest.raises(ValueError, match="already be built"):
        optimizer.apply(gradients[0])
    optimizer.apply(gradients[0], variables)
    kept = [variable.numpy() for variable in variables]
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply(gradients[0], ours(starts))
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None] * 5, variables)
    for variable, before in zip(variables, kept, strict=True):
        np.testing.assert_array_equal(variable.value, before)
    assert int(optimizer.iterations) == 1
    with pytest.raises(ValueError, match="expected variables of a floating dtype"):
        optimizers.Adam().build([Variable(np.arange(3))])


W, F64, FIXED = np.zeros((2, 3), "float32"), np.zeros((2, 3)), np.zeros((2, 3), "float32")
FIXED.flags.writeable = False


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ("adamant", [W], [[W, W]], [True]), "rule: expected one of sgd, .*'adamant'"),
        (lambda: ("adam", [W], [[W]], [True]), "adam: expected 2 slots, got 1"),
        (lambda: ("adam", [W], [], [True]), "adam: expected 1 lists of slots, got 0"),
        (lambda: ("adam", [W], [[W, W]], []), "adam: expected 1 decays, got 0"),
        (lambda: ("adam", [W], [[W, F64]], [True]), "a slot of dtype float32, got float64"),
        (lambda: ("adam", [W], [[W, W[:1]]], [True]), r"shape \(2, 3\), got \(1, 3\)"),
        (lambda: ("sgd", [FIXED], [[]], [True]), "contiguous array that may be written to"),
        (lambda: ("sgd", [W[:, ::2]], [[]], [True]), "contiguous array that may be written to"),
        (lambda: ("sgd", [[1.0]], [[]], [True]), "weights to be a NumPy array, got list"),
    ],
)
def test_the_engine_refuses_other_arrays(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        _core.Updater(*make())


def test_the_engine_refuses_other_steps_before_it_changes_anything():
    weights = [np.ones((2, 3), "float32"), np.ones(4, "float32")]
    updater = _core.Updater("adagrad", weights, [[w.copy()] for w in weights], [True] * 2)
    good = [w.copy() for w in weights]
    for gradients, coefficients, message in [
        (good[:1], [0.1, 0.1], "expected 2 gradients, got 1"),
        (good, [0.1], "expected 2 coefficients, got 1"),
        ([good[0], np.ones(3, "float32")], [0.1, 0.1], r"a gradient with shape \(4,\)"),
        ([good[0], np.ones(4)], [0.1, 0.1], "a gradient of dtype float32, got float64"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            updater.step(gradients, coefficients)
    assert all((w == 1).all() for w in weights)
    updater.step([None, good[1]], [0.1, 0.1])
    assert (weights[0] == 1).all()
    assert (weights[1] < 1).all()


def test_not_a_number_stays_one():
    variables = [Variable(np.ones(3, "float32"))]
    for settings in ({}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}):
        optimizers.Adam(**settings).apply([np.array([np.nan, 1, 1], "float32")], variables)
        assert np.isnan(variables[0].value[0])
