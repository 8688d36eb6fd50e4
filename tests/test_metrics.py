"""Metrics: running results against Keras itself."""

import os
import pickle

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")
import keras

from tidegate import losses, metrics

# Keras's own variables on its NumPy back end.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# metric -> settings, kind of targets, kind of predictions
CASES = [
    ("Accuracy", {}, "class", "class"),
    ("BinaryAccuracy", {}, "bit", "share"),
    ("BinaryAccuracy", {"threshold": 0.2}, "bit", "share"),
    ("CategoricalAccuracy", {}, "one_hot", "share"),
    ("SparseCategoricalAccuracy", {}, "class", "share"),
    ("TopKCategoricalAccuracy", {"k": 2}, "one_hot", "share"),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, "class", "share"),
    ("MeanSquaredError", {}, "real", "real"),
    ("RootMeanSquaredError", {}, "real", "real"),
    ("MeanAbsoluteError", {}, "real", "real"),
    ("MeanAbsolutePercentageError", {}, "real", "real"),
    ("MeanSquaredLogarithmicError", {}, "share", "share"),
    ("LogCoshError", {}, "real", "real"),
    ("CosineSimilarity", {}, "real", "real"),
    ("KLDivergence", {}, "share", "share"),
    ("Poisson", {}, "share", "share"),
    ("Hinge", {}, "bit", "real"),
    ("SquaredHinge", {}, "bit", "real"),
    ("CategoricalHinge", {}, "one_hot", "real"),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, "bit", "share"),
    ("CategoricalCrossentropy", {"from_logits": True}, "one_hot", "real"),
    ("SparseCategoricalCrossentropy", {}, "class", "share"),
    ("R2Score", {}, "real", "real"),
    ("R2Score", {"class_aggregation": None}, "real", "real"),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "real", "real"),
]
BATCHES = (7, 7, 3)
SIZE = 4
# Keras adds up in float32.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}


def draw(rng, kind, shape):
    if kind == "class":
        return rng.integers(0, shape[-1], shape[:-1]).astype("float32")
    if kind == "one_hot":
        return np.eye(shape[-1], dtype="float32")[rng.integers(0, shape[-1], shape[:-1])]
    if kind == "bit":
        return rng.integers(0, 2, shape).astype("float32")
    values = rng.standard_normal(shape).astype("float32")
    if kind == "real":
        return values
    positive = np.abs(values) + 0.1
    return positive / positive.sum(-1, keepdims=True)


def batches(kinds, shape=(SIZE,)):
    rng = np.random.default_rng(1)
    for batch in BATCHES:
        yield [draw(rng, kind, (batch, *shape)) for kind in kinds], rng.random(batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "settings", "targets", "predictions"), CASES, ids=str)
def test_running_results_equal_those_of_keras(name, settings, targets, predictions, weighted):
    metric = getattr(metrics, name)(**settings)
    judge = getattr(keras.metrics, name)(**settings)
    for _ in range(2):
        for (y_true, y_pred), weights in batches((targets, predictions)):
            weight = weights.astype("float32") if weighted else None
            metric.update_state(y_true, y_pred, weight)
            judge.update_state(y_true, y_pred, weight)
            np.testing.assert_allclose(metric.result(), judge.result(), **FLOAT32)
        metric.reset_state()
        judge.reset_state()
        assert metric.result() == 0
    assert metric._direction == judge._direction
    written, judged = metrics.serialize(metric), keras.metrics.serialize(judge)
    if name == "CosineSimilarity":  # Keras forgets the axis
        assert written["config"].pop("axis") == -1
    assert written == judged
    assert metrics.deserialize(written).get_config() == metric.get_config()
    assert pickle.loads(pickle.dumps(metric)).get_config() == metric.get_config()


SEQUENCE_CASES = [case for case in CASES if case[0] not in ("R2Score", "Accuracy")]


@pytest.mark.parametrize(("name", "settings", "targets", "predictions"), SEQUENCE_CASES, ids=str)
def test_sequences_with_weights_per_step(name, settings, targets, predictions):
    metric = getattr(metrics, name)(**settings)
    judge = getattr(keras.metrics, name)(**settings)
    rng = np.random.default_rng(2)
    for (y_true, y_pred), _ in batches((targets, predictions), (5, SIZE)):
        weights = rng.random((len(y_pred), 5)).astype("float32")
        metric.update_state(y_true, y_pred, weights)
        judge.update_state(y_true, y_pred, weights)
    np.testing.assert_allclose(metric.result(), judge.result(), **FLOAT32)


def test_a_mask_counts_each_valid_step_once():
    rng = np.random.default_rng(0)
    metric = metrics.MeanAbsoluteError()
    errors = []
    for batch in BATCHES:
        y_true, y_pred = rng.standard_normal((2, batch, 6, 2))
        mask = rng.random((batch, 6)) < 0.5
        metric.update_state(y_true, y_pred, mask=mask)
        errors.append(np.abs(y_true - y_pred)[mask])
    assert metric.result() == pytest.approx(np.concatenate(errors).mean(), rel=1e-6)
    metric.reset_state()
    metric.update_state(y_true, y_pred, mask=np.zeros(mask.shape, bool))
    assert metric.result() == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_and_sum(weighted):
    rng = np.random.default_rng(0)
    for name in ("Mean", "Sum"):
        metric, judge = getattr(metrics, name)(), getattr(keras.metrics, name)()
        for shape in [(4,), (3, 2), (3, 2, 5)]:
            values = rng.random(shape).astype("float32")
            weights = rng.random(shape[: 2 if name == "Mean" else None]) if weighted else None
            metric.update_state(values, weights)
            judge.update_state(values, weights)
        np.testing.assert_allclose(metric.result(), judge.result(), **FLOAT32)


def test_sums_are_exact_over_long_epochs():
    metric = metrics.Mean()
    for _ in range(1000):
        metric.update_state(np.float32(1e7 + 1))
    assert metric.result() == 1e7 + 1


@pytest.mark.parametrize(
    ("true_shape", "pred_shape", "kind"),
    [
        ((8, 1), (8, 1), metrics.BinaryAccuracy),
        ((8,), (8, 1), metrics.BinaryAccuracy),
        ((8, 5), (8, 5, 1), metrics.BinaryAccuracy),
        ((8,), (8, 3), metrics.SparseCategoricalAccuracy),
        ((8, 1), (8, 3), metrics.SparseCategoricalAccuracy),
        ((8, 5), (8, 5, 3), metrics.SparseCategoricalAccuracy),
        ((8, 3), (8, 3), metrics.CategoricalAccuracy),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "acc", "Accuracy"])
def test_accuracy_goes_by_the_shapes(name, true_shape, pred_shape, kind):
    metric = metrics.resolve(name, np.zeros(true_shape), np.zeros(pred_shape))
    assert type(metric) is kind
    assert metric.name == name


def test_identifiers():
    y = np.zeros((3, 1))
    for name in ("mse", "mae", "mape", "msle", "mean_squared_error", "MeanSquaredError"):
        metric = metrics.resolve(name, y, y)
        assert metric.name == name
        assert type(metric) is type(metrics.get(type(metric)))
        assert type(metric).__name__ == type(keras.metrics.get(name)).__name__
    function = metrics.resolve(lambda t, p: np.abs(t - p), y, y)
    function.update_state([1.0, 2.0], [3.0, 3.0])
    assert function.result() == 1.5
    wrapped = metrics.resolve(losses.mean_squared_error, y, y)
    assert (wrapped.name, wrapped._direction) == ("mean_squared_error", "down")
    restored = metrics.deserialize(metrics.serialize(wrapped))
    assert restored(y, y + 2) == 4
    assert metrics.get(None) is None
    assert metrics.resolve(metrics.MeanAbsoluteError(name="x"), y, y).name == "x"
    assert metrics.resolve(losses.Huber(), y, y)(y, y + 1) == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.get("foo"), "Could not interpret metric identifier: foo"),
        (lambda: metrics.resolve(None, [[1]], [[1]]), "Expected metric, received `None`"),
        (lambda: metrics.R2Score("x"), "`class_aggregation`"),
        (lambda: metrics.R2Score()([1.0, 2.0], [1.0, 2.0]), "expected y_true and y_pred of shape"),
        (lambda: metrics.get("mae")(np.ones((3, 2)), np.ones((3, 4))), "expected y_true"),
        (
            lambda: metrics.get("mae")(np.ones((3, 2)), np.ones((3, 2)), np.ones(2)),
            "expected sample_weight of a shape",
        ),
        (
            lambda: metrics.SparseCategoricalAccuracy()(np.ones(2), np.ones((3, 2))),
            "expected y_true of the shape",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
