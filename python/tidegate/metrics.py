"""Metrics with Keras's definitions: running results over the batches of an epoch.

A metric is updated with `update_state(y_true, y_pred, sample_weight=None, mask=None)`, read with
`result()` and started anew with `reset_state()`. Sums are kept in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import losses
from .losses import classification_kind, merge_mask, same_rank
from .utils import Array, Registry, to_snake_case, unique_name

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Poisson",
    "R2Score",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "deserialize",
    "get",
    "resolve",
    "serialize",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
]

Function = Callable[..., Any]


# ---- Values per sample ---------------------------------------------------------------------------


def accuracy(y_true: Any, y_pred: Any) -> Array:
    """1 where `y_true == y_pred`, else 0."""
    y_true, y_pred = same_rank(np.asarray(y_true), np.asarray(y_pred))
    return np.equal(y_true, y_pred).astype("float32")


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Array:
    """1 where `y_true == (y_pred > threshold)`, else 0."""
    y_true, y_pred = same_rank(np.asarray(y_true), np.asarray(y_pred))
    return np.equal(y_true, y_pred > threshold).astype("float32")


def categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """1 where the largest entries of `y_true` and `y_pred` on the last axis agree, else 0."""
    return np.equal(np.argmax(y_true, -1), np.argmax(y_pred, -1)).astype("float32")


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """1 where the class number `y_true` is that of the largest entry of `y_pred`, else 0.

    `y_true` has the shape of `y_pred` without its last axis, or with 1 there.
    """
    return np.equal(_labels(y_true, y_pred), np.argmax(y_pred, -1)).astype("float32")


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Array:
    """1 where the class of the largest entry of `y_true` is among the k largest of `y_pred`."""
    return sparse_top_k_categorical_accuracy(np.argmax(y_true, -1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Array:
    """1 where the class number `y_true` is among those of the k largest entries of `y_pred`.

    Classes that tie with the k-th largest count.
    """
    y_pred = np.asarray(y_pred)
    labels = _labels(y_true, y_pred).astype(np.int64)
    of_label = np.take_along_axis(y_pred, labels[..., None], -1)
    return ((y_pred > of_label).sum(-1) < k).astype("float32")


def _labels(y_true: Any, y_pred: Any) -> Array:
    labels = np.asarray(y_true)
    if labels.ndim == np.ndim(y_pred) and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.shape != np.shape(y_pred)[:-1]:
        raise ValueError(
            "sparse accuracy: expected y_true of the shape of y_pred without its last axis, "
            f"got y_true.shape={np.shape(y_true)} and y_pred.shape={np.shape(y_pred)}"
        )
    return labels


def _cosine(y_true: Any, y_pred: Any, axis: int = -1) -> Array:
    return -losses.cosine_similarity(y_true, y_pred, axis)


# ---- Metric objects ------------------------------------------------------------------------------


class Metric:
    """Base class. Subclasses define `update_state`, `result` and `reset_state`.

    Args:
        name: What the result is called in logs. Defaults to the class's name in snake case.
        dtype: Kept in the configuration.
    """

    # Whether the best value is the largest ("up") or the smallest ("down"); None: unknown.
    _direction: str | None = None

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        self.name = name or unique_name(type(self).__name__)
        self.dtype = np.dtype("float32" if dtype is None else dtype).name

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Takes in a batch."""
        raise NotImplementedError(f"metric {self.name!r}: expected an update_state method")

    def result(self) -> Any:
        """The result over all batches since the last `reset_state`."""
        raise NotImplementedError(f"metric {self.name!r}: expected a result method")

    def reset_state(self) -> None:
        """Forgets all batches."""
        raise NotImplementedError(f"metric {self.name!r}: expected a reset_state method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Takes in a batch and returns the result so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """The metric that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class Mean(Metric):
    """The weighted mean of values: `sum(weight * value) / sum(weight)`.

    Values are first averaged over all axes but the first, or those that the weights have.
    """

    def __init__(self, name: str | None = "mean", dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.reset_state()

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Takes in values of shape `(batch, ...)`, with weights `(batch,)` or more axes, or None.

        Raises:
            ValueError: The shapes do not fit.
        """
        self._total, self._count = self._total_and_count(values, sample_weight)

    def _total_and_count(self, values: Any, sample_weight: Any) -> tuple[float, float]:
        values = np.asarray(values)
        if sample_weight is None:
            if values.size == 0:
                return self._total, self._count
            batch = len(values) if values.ndim else 1
            total = float(values.sum(dtype=np.float64)) * (batch / values.size)
            return self._total + total, self._count + batch
        values, weights = same_rank(values, np.asarray(sample_weight))
        if values.ndim > weights.ndim:
            values = values.mean(axis=tuple(range(weights.ndim, values.ndim)))
        try:
            weights = np.broadcast_to(weights, values.shape)
        except ValueError:
            raise ValueError(
                f"metric {self.name!r}: expected sample_weight of a shape that fits the values' "
                f"{values.shape}, got {weights.shape}"
            ) from None
        if values.size == 0:
            return self._total, self._count
        # Both are means over the axes behind the batch.
        scale = len(values) / values.size if values.ndim else 1.0
        total = float((values * weights).sum(dtype=np.float64)) * scale
        return self._total + total, self._count + float(weights.sum(dtype=np.float64)) * scale

    def result(self) -> float:
        """The mean so far; 0 before any value."""
        return self._total / self._count if self._count else 0.0

    def reset_state(self) -> None:
        """Forgets all values."""
        self._total = 0.0
        self._count = 0.0


class Sum(Metric):
    """The weighted sum of values."""

    def __init__(self, name: str | None = "sum", dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.reset_state()

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Takes in values of any shape, with weights for its first axes or None."""
        values = np.asarray(values)
        if sample_weight is not None:
            values, weights = same_rank(values, np.asarray(sample_weight))
            values = values * weights.reshape(
                weights.shape + (1,) * max(0, values.ndim - weights.ndim)
            )
        self._total += float(values.sum(dtype=np.float64))

    def result(self) -> float:
        """The sum so far."""
        return self._total

    def reset_state(self) -> None:
        """Forgets all values."""
        self._total = 0.0


class MeanMetricWrapper(Mean):
    """The mean of a function of targets and predictions.

    Args:
        fn: `fn(y_true, y_pred, **kwargs)`, which returns one value per sample or step; or a `Loss`.
        name: Defaults to the function's name.
        dtype: Kept in the configuration.
        kwargs: Further arguments for `fn`.
    """

    def __init__(
        self, fn: Function, name: str | None = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(name or _name_of(fn), dtype)
        self._fn = fn
        self._settings = kwargs
        if isinstance(fn, losses.Loss) or hasattr(fn, "terms"):
            self._direction = "down"

    def update_state(  # type: ignore[override]
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None
    ) -> None:
        """Takes in a batch.

        Args:
            y_true: Targets, `(batch, ...)`.
            y_pred: Predictions, `(batch, ...)`.
            sample_weight: `(batch,)` or `(batch, time)`, or None.
            mask: `(batch, time)`: which steps count; or None for all.

        Raises:
            ValueError: The shapes do not fit each other.
        """
        values = self._fn(np.asarray(y_true), np.asarray(y_pred), **self._settings)
        super().update_state(values, merge_mask(sample_weight, mask, "float32", scale=False))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        config = super().get_config()
        if type(self) is MeanMetricWrapper:
            config["fn"] = losses.serialize(self._fn)
        return {**config, **self._settings}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """The metric that `get_config` described."""
        if isinstance(config.get("fn"), Mapping):
            config = {**config, "fn": losses.deserialize(config["fn"])}
        return cls(**config)


def _name_of(item: Any) -> str:
    name = getattr(item, "name", None) or getattr(item, "__name__", type(item).__name__)
    return to_snake_case(str(name))


class _Named(MeanMetricWrapper):
    """A mean of a function of this package."""

    _function: Function
    _name: str

    def __init__(self, name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        direction = self._direction
        super().__init__(type(self)._function, name or self._name, dtype, **kwargs)
        self._direction = direction


class Accuracy(_Named):
    """How often `y_true == y_pred`."""

    _function = staticmethod(accuracy)
    _name = "accuracy"
    _direction = "up"


class BinaryAccuracy(_Named):
    """How often `y_true == (y_pred > threshold)`."""

    _function = staticmethod(binary_accuracy)
    _name = "binary_accuracy"
    _direction = "up"

    def __init__(self, name: str | None = None, dtype: Any = None, threshold: float = 0.5) -> None:
        super().__init__(name, dtype, threshold=threshold)


class CategoricalAccuracy(_Named):
    """How often the largest prediction is the class that is largest in `y_true`."""

    _function = staticmethod(categorical_accuracy)
    _name = "categorical_accuracy"
    _direction = "up"


class SparseCategoricalAccuracy(_Named):
    """How often the largest prediction is the class whose number is `y_true`."""

    _function = staticmethod(sparse_categorical_accuracy)
    _name = "sparse_categorical_accuracy"
    _direction = "up"


class TopKCategoricalAccuracy(_Named):
    """How often the class that is largest in `y_true` is among the k largest predictions."""

    _function = staticmethod(top_k_categorical_accuracy)
    _name = "top_k_categorical_accuracy"
    _direction = "up"

    def __init__(self, k: int = 5, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name, dtype, k=k)


class SparseTopKCategoricalAccuracy(_Named):
    """How often the class whose number is `y_true` is among the k largest predictions."""

    _function = staticmethod(sparse_top_k_categorical_accuracy)
    _name = "sparse_top_k_categorical_accuracy"
    _direction = "up"

    def __init__(self, k: int = 5, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name, dtype, k=k)


class MeanSquaredError(_Named):
    """Mean of the squared errors."""

    _function = staticmethod(losses.mean_squared_error)
    _name = "mean_squared_error"
    _direction = "down"


class RootMeanSquaredError(MeanSquaredError):
    """Root of the mean of the squared errors. Masked steps do not count (in Keras they do)."""

    _name = "root_mean_squared_error"

    def result(self) -> float:
        """The root of the mean so far."""
        return math.sqrt(super().result())


class MeanAbsoluteError(_Named):
    """Mean of the absolute errors."""

    _function = staticmethod(losses.mean_absolute_error)
    _name = "mean_absolute_error"
    _direction = "down"


class MeanAbsolutePercentageError(_Named):
    """Mean of the relative errors in percent."""

    _function = staticmethod(losses.mean_absolute_percentage_error)
    _name = "mean_absolute_percentage_error"
    _direction = "down"


class MeanSquaredLogarithmicError(_Named):
    """Mean squared difference of logarithms."""

    _function = staticmethod(losses.mean_squared_logarithmic_error)
    _name = "mean_squared_logarithmic_error"
    _direction = "down"


class LogCoshError(_Named):
    """Mean logarithm of the hyperbolic cosine of the errors."""

    _function = staticmethod(losses.log_cosh)
    _name = "logcosh"
    _direction = "down"


class CosineSimilarity(_Named):
    """Mean cosine between the vectors along `axis`: 1 is the best, unlike the loss of that name."""

    _function = staticmethod(_cosine)
    _name = "cosine_similarity"
    _direction = "up"

    def __init__(self, name: str | None = None, dtype: Any = None, axis: int = -1) -> None:
        super().__init__(name, dtype, axis=axis)


class KLDivergence(_Named):
    """Mean Kullback-Leibler divergence."""

    _function = staticmethod(losses.kl_divergence)
    _name = "kl_divergence"
    _direction = "down"


class Poisson(_Named):
    """Mean Poisson loss."""

    _function = staticmethod(losses.poisson)
    _name = "poisson"
    _direction = "down"


class Hinge(_Named):
    """Mean hinge loss."""

    _function = staticmethod(losses.hinge)
    _name = "hinge"
    _direction = "down"


class SquaredHinge(_Named):
    """Mean squared hinge loss."""

    _function = staticmethod(losses.squared_hinge)
    _name = "squared_hinge"
    _direction = "down"


class CategoricalHinge(_Named):
    """Mean hinge loss of classes."""

    _function = staticmethod(losses.categorical_hinge)
    _name = "categorical_hinge"
    _direction = "down"


class BinaryCrossentropy(_Named):
    """Mean crossentropy of independent yes/no labels."""

    _function = staticmethod(losses.binary_crossentropy)
    _name = "binary_crossentropy"
    _direction = "down"

    def __init__(
        self,
        name: str | None = None,
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__(name, dtype, from_logits=from_logits, label_smoothing=label_smoothing)


class CategoricalCrossentropy(_Named):
    """Mean crossentropy of one-hot classes."""

    _function = staticmethod(losses.categorical_crossentropy)
    _name = "categorical_crossentropy"
    _direction = "down"

    def __init__(
        self,
        name: str | None = None,
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        super().__init__(
            name, dtype, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis
        )


class SparseCategoricalCrossentropy(_Named):
    """Mean crossentropy of class numbers. It is 0 where these equal `ignore_class`."""

    _function = staticmethod(losses.sparse_categorical_crossentropy)
    _name = "sparse_categorical_crossentropy"
    _direction = "down"

    def __init__(
        self,
        name: str | None = None,
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype, from_logits=from_logits, ignore_class=ignore_class, axis=axis)


class R2Score(Metric):
    """The coefficient of determination: 1 - residual sum of squares / total sum of squares.

    Args:
        class_aggregation: `"uniform_average"` (the mean over the outputs),
            `"variance_weighted_average"`, or None for one score per output.
        name: What the result is called in logs.
        dtype: Kept in the configuration.

    Raises:
        ValueError: `class_aggregation` is unknown.
    """

    _direction = "up"
    # Sums over the samples, one per output.
    _sum: Array
    _squares: Array
    _residual: Array

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ) -> None:
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                "Invalid value for argument `class_aggregation`. Expected one of None, "
                "'uniform_average', 'variance_weighted_average'. "
                f"Received: class_aggregation={class_aggregation}"
            )
        if num_regressors != 0:
            raise ValueError(f"num_regressors: expected 0, got {num_regressors}")
        super().__init__(name, dtype)
        self.class_aggregation = class_aggregation
        self.reset_state()

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None
    ) -> None:
        """Takes in a batch: arrays `(batch, outputs)`, weights `(batch,)`, mask `(batch,)`."""
        y_true, y_pred = same_rank(np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64))
        if y_true.ndim != 2 or y_pred.shape != y_true.shape:
            raise ValueError(
                "R2Score: expected y_true and y_pred of shape (batch, outputs), "
                f"got {y_true.shape} and {y_pred.shape}"
            )
        weights: Any = merge_mask(sample_weight, mask, np.float64, scale=False)
        weights = np.ones((len(y_true), 1)) if weights is None else weights.reshape(-1, 1)
        self._count += float(weights.sum())
        self._sum = self._sum + (weights * y_true).sum(axis=0)
        self._squares = self._squares + (weights * y_true * y_true).sum(axis=0)
        self._residual = self._residual + (weights * (y_true - y_pred) ** 2).sum(axis=0)

    def result(self) -> Any:
        """The score so far: a float, or an array of one per output."""
        if not self._count:
            return 0.0
        total = self._squares - self._sum * self._sum / self._count
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = 1.0 - self._residual / total
        scores = np.where(np.isinf(scores), 0.0, scores)
        if self.class_aggregation is None:
            return scores
        if self.class_aggregation == "uniform_average":
            return float(scores.mean())
        return float((total * scores).sum() / np.sum(total))

    def reset_state(self) -> None:
        """Forgets all batches."""
        self._count = 0.0
        self._sum = self._squares = self._residual = np.zeros(1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {
            **super().get_config(),
            "class_aggregation": self.class_aggregation,
            "num_regressors": 0,
        }


_registry = Registry(
    "keras.metrics",
    "metric",
    [
        Accuracy,
        BinaryAccuracy,
        BinaryCrossentropy,
        CategoricalAccuracy,
        CategoricalCrossentropy,
        CategoricalHinge,
        CosineSimilarity,
        Hinge,
        KLDivergence,
        LogCoshError,
        Mean,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanMetricWrapper,
        MeanSquaredError,
        MeanSquaredLogarithmicError,
        Poisson,
        R2Score,
        RootMeanSquaredError,
        SparseCategoricalAccuracy,
        SparseCategoricalCrossentropy,
        SparseTopKCategoricalAccuracy,
        SquaredHinge,
        Sum,
        TopKCategoricalAccuracy,
    ],
    {
        "bce": BinaryCrossentropy,
        "BCE": BinaryCrossentropy,
        "mae": MeanAbsoluteError,
        "MAE": MeanAbsoluteError,
        "mape": MeanAbsolutePercentageError,
        "MAPE": MeanAbsolutePercentageError,
        "mse": MeanSquaredError,
        "MSE": MeanSquaredError,
        "msle": MeanSquaredLogarithmicError,
        "MSLE": MeanSquaredLogarithmicError,
    },
)


def serialize(metric: Any) -> dict[str, Any]:
    """`metric` as the dict that Keras's files hold."""
    return _registry.serialize(metric)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The metric that a name or a dict from `serialize` describes."""
    return _registry.deserialize(config, custom_objects)


def get(identifier: Any) -> Metric | None:
    """The metric object for an identifier.

    Args:
        identifier: A name (`"mae"`, `"mean_absolute_error"`, `"MeanAbsoluteError"`, ...), a dict
            from `serialize`, a `Metric` object or class, a function of `(y_true, y_pred)` that
            gives one value per sample, a `Loss`, or None.

    Raises:
        ValueError: It is none of these, or the name is unknown.
    """
    found = _registry.get(identifier)
    if found is None or isinstance(found, Metric):
        return found
    return MeanMetricWrapper(found)


def resolve(identifier: Any, y_true: Any, y_pred: Any) -> Metric:
    """The metric that `compile(metrics=[identifier])` means for such targets and predictions.

    As `get`; but `"accuracy"` (`"acc"`) is binary for predictions whose last axis has length 1,
    sparse for targets that have one axis less or a last axis of length 1, else categorical. A
    metric given by name is called by that name.

    Raises:
        ValueError: `identifier` is None or unknown.
    """
    if identifier is None:
        raise ValueError("Expected metric, received `None`")
    if str(identifier).lower() in ("accuracy", "acc"):
        kinds: dict[str, type[Metric]] = {
            "binary": BinaryAccuracy,
            "sparse_categorical": SparseCategoricalAccuracy,
            "categorical": CategoricalAccuracy,
        }
        return kinds[classification_kind(np.shape(y_true), np.shape(y_pred))](name=str(identifier))
    metric = get(identifier)
    assert metric is not None
    if isinstance(identifier, str):
        metric.name = identifier
    return metric
