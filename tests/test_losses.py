"""Losses: values against Keras itself, gradients against central differences."""

import os
import pickle

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")
import keras

from tidegate import losses

# loss -> settings to try, kind of targets, kind of predictions
CASES = [
    ("MeanSquaredError", {}, "real", "real"),
    ("MeanAbsoluteError", {}, "real", "real"),
    ("MeanAbsolutePercentageError", {}, "real", "real"),
    ("MeanSquaredLogarithmicError", {}, "positive", "positive"),
    ("Huber", {}, "real", "real"),
    ("Huber", {"delta": 0.3}, "real", "real"),
    ("LogCosh", {}, "real", "real"),
    ("CosineSimilarity", {}, "real", "real"),
    ("CosineSimilarity", {"axis": 1}, "real", "real"),  # the same, or across time
    ("KLDivergence", {}, "share", "share"),
    ("Poisson", {}, "positive", "positive"),
    ("BinaryCrossentropy", {}, "bit", "share"),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}, "bit", "share"),
    ("BinaryCrossentropy", {"from_logits": True}, "bit", "real"),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, "bit", "real"),
    ("CategoricalCrossentropy", {}, "one_hot", "share"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "one_hot", "positive"),
    ("CategoricalCrossentropy", {"from_logits": True}, "one_hot", "real"),
    ("CategoricalCrossentropy", {"from_logits": True, "axis": 1}, "one_hot", "real"),
    ("SparseCategoricalCrossentropy", {}, "class", "share"),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, "class", "real"),
    ("SparseCategoricalCrossentropy", {"ignore_class": 1}, "class", "positive"),
    ("SparseCategoricalCrossentropy", {"ignore_class": 1, "from_logits": True}, "class", "real"),
    ("Hinge", {}, "sign", "real"),
    ("Hinge", {}, "bit", "real"),
    ("SquaredHinge", {}, "bit", "real"),
    ("CategoricalHinge", {}, "one_hot", "real"),
]
BATCH, TIME, SIZE = 5, 4, 3
# All are sums of at most BATCH * TIME * SIZE float32 terms of size 1 to 100, and logarithms.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}


def draw(kind, shape, seed):
    rng = np.random.default_rng(seed)
    if kind == "class":
        return rng.integers(0, shape[-1], shape[:-1])
    if kind == "one_hot":
        return np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
    if kind == "bit":
        return rng.integers(0, 2, shape).astype("float64")
    if kind == "sign":
        return rng.choice([-1.0, 1.0], shape)
    values = rng.standard_normal(shape)
    if kind == "real":
        return values
    positive = np.abs(values) + 0.1
    return positive / positive.sum(-1, keepdims=True) if kind == "share" else positive


def central_differences(function, x, step=1e-5):
    """The gradient to an error of about (step**2 + 1e-16 / step) * the size of the function."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += step
        up = function(moved)
        moved[index] -= 2 * step
        gradient[index] = (up - function(moved)) / (2 * step)
    return gradient


def check_gradient(loss, y_true, y_pred, **weights):
    value, gradient = loss.value_and_gradient(y_true, y_pred, **weights)
    assert value == pytest.approx(loss(y_true, y_pred, **weights), rel=1e-12)
    assert gradient.shape == y_pred.shape
    assert gradient.dtype == y_pred.dtype
    expected = central_differences(lambda p: loss(y_true, p, **weights), y_pred)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(("name", "settings", "targets", "predictions"), CASES, ids=str)
class TestEachLoss:
    def arrays(self, rank, targets, predictions):
        shape = (BATCH, SIZE) if rank == 2 else (BATCH, TIME, SIZE)
        return draw(targets, shape, 1), draw(predictions, shape, 2)

    # Keras's own NumPy back end, on classes that are ignored.
    @pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
    def test_values_and_reductions_equal_those_of_keras(
        self, name, settings, targets, predictions, rank
    ):
        y_true, y_pred = self.arrays(rank, targets, predictions)
        y_pred = y_pred.astype("float32")
        judged_true = y_true if targets == "class" else y_true.astype("float32")
        shape = getattr(keras.losses, name)(reduction="none", **settings)(judged_true, y_pred).shape
        weights = np.random.default_rng(3).uniform(0, 2, shape).astype("float32")
        for reduction in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", None):
            loss = getattr(losses, name)(reduction=reduction, **settings)
            judge = getattr(keras.losses, name)(reduction=reduction, **settings)
            for weight in (None, weights):
                np.testing.assert_allclose(
                    loss(y_true, y_pred, weight),
                    judge(judged_true, y_pred, weight),
                    **FLOAT32,
                )
        function = getattr(losses, name)().fn.__name__
        np.testing.assert_allclose(
            getattr(losses, function)(y_true, y_pred, **settings),
            getattr(keras.losses, function)(judged_true, y_pred, **settings),
            **FLOAT32,
        )

    def test_gradient_is_that_of_central_differences(
        self, name, settings, targets, predictions, rank
    ):
        y_true, y_pred = self.arrays(rank, targets, predictions)
        rng = np.random.default_rng(4)
        loss = getattr(losses, name)(**settings)
        check_gradient(loss, y_true, y_pred)
        values = getattr(losses, name)(reduction="none", **settings)(y_true, y_pred)
        weights = rng.uniform(0, 2, values.shape)
        mask = rng.random(values.shape) < 0.6
        check_gradient(loss, y_true, y_pred, sample_weight=weights)
        check_gradient(loss, y_true, y_pred, mask=mask)
        check_gradient(loss, y_true, y_pred, sample_weight=weights, mask=mask)
        for reduction in ("sum", "mean_with_sample_weight"):
            other = getattr(losses, name)(reduction=reduction, **settings)
            check_gradient(other, y_true, y_pred, sample_weight=weights, mask=mask)


@pytest.mark.parametrize(("name", "settings"), [case[:2] for case in CASES], ids=str)
def test_config_is_read_by_keras_and_back(name, settings):
    loss = getattr(losses, name)(**settings)
    written = losses.serialize(loss)
    assert written["module"] == "keras.losses"
    judge = keras.losses.deserialize(dict(written))
    assert type(judge).__name__ == name
    assert judge.name == loss.name
    assert set(judge.get_config()) <= set(loss.get_config())
    assert losses.deserialize(written).get_config() == loss.get_config()
    assert losses.deserialize(keras.losses.serialize(judge)).name == loss.name
    assert pickle.loads(pickle.dumps(loss)).get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("true_shape", "pred_shape"),
    [
        ((5,), (5, 1)),
        ((5, 1), (5,)),
        ((5, 4), (5, 4, 1)),
        ((5, 4, 1), (5, 4)),
        ((5, 1), (5, 3)),  # broadcast along the last axis
        ((5, 3), (5, 1)),
        ((5,), (5,)),
        ((5, 1), (5, 4, 1)),
    ],
)
def test_ranks_are_made_equal_as_keras_does(true_shape, pred_shape):
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.standard_normal(true_shape), rng.standard_normal(pred_shape)
    expected = keras.losses.MeanSquaredError()(y_true.astype("f4"), y_pred.astype("f4"))
    np.testing.assert_allclose(losses.MeanSquaredError()(y_true, y_pred), expected, rtol=1e-6)
    check_gradient(losses.MeanSquaredError(), y_true, y_pred)


@pytest.mark.parametrize(
    ("values_shape", "weight_shape"), [((5, 4), (5, 4)), ((5, 4), (5, 4, 1)), ((5,), (5, 1))]
)
def test_weights_of_other_ranks_as_keras(values_shape, weight_shape):
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.standard_normal((2, *values_shape, 3)).astype("float32")
    weights = rng.random(weight_shape).astype("float32")
    expected = keras.losses.MeanSquaredError()(y_true, y_pred, weights)
    np.testing.assert_allclose(losses.MeanSquaredError()(y_true, y_pred, weights), expected, 1e-6)


def test_weights_per_sample_hold_for_all_its_steps():
    rng = np.random.default_rng(0)
    for time in (4, 5):  # also where both axes have the same length
        y_true, y_pred = rng.standard_normal((2, 5, time, 3))
        weights = rng.random(5)
        loss = losses.MeanSquaredError()
        expected = ((y_true - y_pred) ** 2 * weights[:, None, None]).mean()
        assert loss(y_true, y_pred, weights) == pytest.approx(expected, rel=1e-12)
        check_gradient(loss, y_true, y_pred, sample_weight=weights)
        check_gradient(loss, y_true, y_pred, sample_weight=weights, mask=np.ones((5, time), bool))


def test_a_mask_takes_the_mean_over_what_is_valid():
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.standard_normal((2, 5, 4, 1))
    mask = rng.random((5, 4)) < 0.5
    expected = ((y_true - y_pred)[mask] ** 2).mean()
    loss = losses.MeanSquaredError()
    assert loss(y_true, y_pred, mask=mask) == pytest.approx(expected, rel=1e-12)
    # Targets without the last axis keep the axis of time that the mask is for.
    assert loss(y_true[..., 0], y_pred, mask=mask) == pytest.approx(expected, rel=1e-12)
    check_gradient(loss, y_true[..., 0], y_pred, mask=mask)
    nothing, gradient = loss.value_and_gradient(y_true, y_pred, mask=np.zeros((5, 4), bool))
    assert nothing == 0
    assert not gradient.any()


def test_extreme_predictions_stay_finite_and_nan_stays_nan():
    logits = np.array([[-1e4], [1e4], [0.0]])
    for name in ("BinaryCrossentropy", "CategoricalCrossentropy"):
        shaped = np.hstack([logits, -logits])
        target = np.array([[1.0, 0], [1, 0], [0, 1]])
        value, gradient = getattr(losses, name)(from_logits=True).value_and_gradient(target, shaped)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    value, gradient = losses.LogCosh().value_and_gradient(0 * logits, logits)
    assert value == pytest.approx((2e4 - 2 * np.log(2)) / 3)
    np.testing.assert_array_equal(gradient[:, 0] * 3, [-1, 1, 0])
    sure = np.array([[0.0, 1.0], [1.0, 0.0]])
    for name in ("BinaryCrossentropy", "CategoricalCrossentropy", "KLDivergence", "Poisson"):
        value, gradient = getattr(losses, name)().value_and_gradient(sure[::-1], sure)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    for name in ("MeanSquaredError", "Huber", "LogCosh", "Poisson", "CosineSimilarity"):
        value, gradient = getattr(losses, name)().value_and_gradient(
            np.ones((2, 2)), np.array([[np.nan, 1], [1, 1]])
        )
        assert np.isnan(value)
        assert np.isnan(gradient[0]).any()


NAMES = [
    "mse",
    "MSE",
    "mae",
    "mape",
    "msle",
    "bce",
    "kld",
    "mean_squared_error",
    "huber",
    "poisson",
]


@pytest.mark.parametrize("name", [*NAMES, *dict.fromkeys(case[0] for case in CASES)])
def test_get_by_name(name):
    loss = losses.get(name)
    assert isinstance(loss, losses.Loss)
    judge = keras.losses.get(name)
    assert loss.fn.__name__ == getattr(judge, "__name__", None) or type(judge).__name__ == name
    if name in NAMES:
        assert loss.name == name
        with pytest.raises(ValueError, match="expected y_true"):
            loss(np.ones((2, 3)), np.ones((2, 4)))


def test_other_ways_to_name_a_loss():
    assert losses.get(None) is None
    assert isinstance(losses.get(losses.Huber), losses.Huber)
    function = losses.get(losses.huber)
    assert (function.name, function.fn) == ("huber", losses.huber)
    kinds = [
        ((8,), (8, 1), "binary"),
        ((8,), (8, 3), "sparse_cat"),
        ((8, 3), (8, 3), "categorical"),
    ]
    for true_shape, pred_shape, kind in kinds:
        loss = losses.resolve("crossentropy", np.zeros(true_shape), np.zeros(pred_shape))
        assert loss.name == "crossentropy"
        assert loss.fn.__name__.startswith(kind)
    assert losses.resolve("mse", np.zeros(3), np.zeros(3)).name == "mse"
    wrapped = losses.serialize(losses.get("mse"))
    assert losses.deserialize(wrapped).fn is losses.mean_squared_error


def test_losses_of_users():
    class Quartic(losses.Loss):
        def call(self, y_true, y_pred):
            return ((y_pred - y_true) ** 4).mean(-1)

        def backward(self, y_true, y_pred, d_values):
            return d_values[:, None] * 4 * (y_pred - y_true) ** 3 / y_pred.shape[-1]

    rng = np.random.default_rng(0)
    y_true, y_pred = rng.standard_normal((2, 5, 3))
    assert Quartic().name == "quartic"
    check_gradient(Quartic(), y_true, y_pred, sample_weight=rng.random(5))
    plain = losses.get(lambda t, p: ((p - t) ** 2).mean(-1))
    assert plain(y_true, y_pred) == pytest.approx(losses.MeanSquaredError()(y_true, y_pred))
    with pytest.raises(TypeError, match=r"training needs its gradient.*backward"):
        plain.value_and_gradient(y_true, y_pred)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.get("foo"), "Could not interpret loss identifier: foo"),
        (lambda: losses.get(3), "Could not interpret loss identifier: 3"),
        (lambda: losses.Huber(reduction="x"), "Invalid value for argument `reduction`"),
        (lambda: losses.Huber(reduction=None).value_and_gradient([[1.0]], [[2.0]]), "one number"),
        (lambda: losses.get("bce")(np.ones((2, 1)), np.ones((2, 3))), "of the same shape"),
        (
            lambda: losses.get("mse")(np.ones((4, 3)), np.ones((4, 3)), np.ones(3)),
            "expected a shape that fits",
        ),
        (
            lambda: losses.get("mse")(
                np.ones((4, 2, 3)), np.ones((4, 2, 3)), np.ones(3), np.ones((4, 2))
            ),
            "expected a shape that fits",
        ),
        (
            lambda: losses.get("sparse_categorical_crossentropy")([0, 3], np.ones((2, 3))),
            "class numbers from 0 to 2, got 0 to 3",
        ),
        (
            lambda: losses.get("sparse_categorical_crossentropy")([-1, 2], np.ones((2, 3))),
            "class numbers from 0 to 2, got -1 to 2",
        ),
        (
            lambda: losses.get("sparse_categorical_crossentropy")(np.ones(3), np.ones((2, 3))),
            "of the shape of y_pred without",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_float32_gradients_agree_with_float64_ones():
    # Elementwise formulas of a few operations: some ulp of the largest entry.
    for name, settings, targets, predictions in CASES:
        y_true, y_pred = draw(targets, (64, SIZE), 1), draw(predictions, (64, SIZE), 2)
        y_pred = y_pred.astype("float32")
        loss = getattr(losses, name)(**settings)
        value, gradient = loss.value_and_gradient(y_true, y_pred)
        exact, exact_gradient = loss.value_and_gradient(y_true, y_pred.astype("float64"))
        assert gradient.dtype == np.float32
        assert value == pytest.approx(exact, rel=1e-5)
        np.testing.assert_allclose(
            gradient, exact_gradient, rtol=1e-4, atol=1e-6 * np.abs(exact_gradient).max()
        )
