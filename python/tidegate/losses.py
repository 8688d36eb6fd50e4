"""Losses with Keras's definitions, each with its value and, beside it, its gradient.

A loss has two forms, as in Keras. The function (`mean_squared_error(y_true, y_pred)`) gives one
value per sample or step: the last axis is reduced. The `Loss` object reduces these further, with
sample weights and masks, to one number; `value_and_gradient` gives that number and its derivative
by the predictions.

Arrays are taken in the dtype of `y_pred`. If `y_true` and `y_pred` differ by a last axis of length
1, it is added or dropped, so that targets `(batch,)` fit predictions `(batch, 1)`.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .utils import EPSILON, Array, Registry, to_snake_case, unique_name

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunctionWrapper",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "binary_crossentropy",
    "categorical_crossentropy",
    "categorical_hinge",
    "cosine_similarity",
    "deserialize",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "resolve",
    "serialize",
    "sparse_categorical_crossentropy",
    "squared_hinge",
]

Function = Callable[..., Array]


class Terms(NamedTuple):
    """What a loss function computes.

    values: one per sample or step.
    backward: takes the derivative by `values`, returns that by `y_pred`.
    mask: which values count, or None for all.
    """

    values: Array
    backward: Callable[[Array], Array]
    mask: Array | None = None


# ---- Shapes --------------------------------------------------------------------------------------


def same_rank(a: Array, b: Array) -> tuple[Array, Array]:
    """Adds or drops a last axis of length 1 if that makes the ranks equal (Keras's rule).

    It is added to a vector, and dropped from the larger array otherwise.
    """
    if a.ndim == b.ndim + 1 and a.shape[-1] == 1:
        return (a, b[:, None]) if b.ndim == 1 else (a[..., 0], b)
    if b.ndim == a.ndim + 1 and b.shape[-1] == 1:
        return (a[:, None], b) if a.ndim == 1 else (a, b[..., 0])
    return a, b


def _sum_to_shape(array: Array, shape: tuple[int, ...]) -> Array:
    """The derivative by an array of `shape` that was broadcast to that of `array`."""
    if array.shape == shape:
        return array
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and array.shape[i] != 1)
    return array.sum(axis=stretched, keepdims=True)


def _mean(array: Array, axis: int = -1) -> Array:
    return np.add.reduce(array, axis) / array.shape[axis]  # np.mean costs thrice as much


def _elementwise(function: Callable[..., Terms]) -> Callable[..., Terms]:
    """Gives `function` arrays of one shape, as NumPy broadcasts them."""

    @functools.wraps(function)
    def terms(y_true: Array, y_pred: Array, *args: Any, **settings: Any) -> Terms:
        if y_true.shape == y_pred.shape:
            return function(y_true, y_pred, *args, **settings)
        try:
            pair = np.broadcast_arrays(y_true, y_pred)
        except ValueError:
            raise ValueError(
                f"{function.__name__}: expected y_true of a shape that fits y_pred, "
                f"got y_true.shape={y_true.shape} and y_pred.shape={y_pred.shape}"
            ) from None
        values, backward, mask = function(*pair, *args, **settings)
        return Terms(values, lambda d: _sum_to_shape(backward(d), y_pred.shape), mask)

    return terms


def _same_shape(function: Callable[..., Terms]) -> Callable[..., Terms]:
    """Refuses arrays of different shapes."""

    @functools.wraps(function)
    def terms(y_true: Array, y_pred: Array, *args: Any, **settings: Any) -> Terms:
        if y_true.shape != y_pred.shape:
            raise ValueError(
                f"{function.__name__}: expected y_true and y_pred of the same shape, "
                f"got y_true.shape={y_true.shape} and y_pred.shape={y_pred.shape}"
            )
        return function(y_true, y_pred, *args, **settings)

    return terms


def _terms(
    function: Callable[..., Terms],
    y_true: Any,
    y_pred: Any,
    dtype: Any,
    *args: Any,
    **settings: Any,
) -> Terms:
    """`function` on the arrays as the module's docstring says."""
    given = np.asarray(y_pred)
    if dtype is None:
        dtype = given.dtype if given.dtype.kind == "f" else "float32"
    predictions = np.asarray(given, dtype)
    targets, predictions = same_rank(np.asarray(y_true, dtype), predictions)
    values, backward, mask = function(targets, predictions, *args, **settings)
    if predictions.shape == given.shape:
        return Terms(values, backward, mask)
    return Terms(values, lambda d: backward(d).reshape(given.shape), mask)


def _loss_function(function: Callable[..., Terms]) -> Function:
    """The public form of a function that gives terms: it gives their values."""

    @functools.wraps(function)
    def values(y_true: Any, y_pred: Any, *args: Any, **settings: Any) -> Array:
        return _terms(function, y_true, y_pred, None, *args, **settings).values

    values.terms = function  # type: ignore[attr-defined]
    return values


# ---- Regression ----------------------------------------------------------------------------------


@_loss_function
@_elementwise
def mean_squared_error(y_true: Array, y_pred: Array) -> Terms:
    """Mean over the last axis of `(y_pred - y_true)**2`."""
    error = y_pred - y_true
    scale = 2.0 / error.shape[-1]
    return Terms(_mean(error * error), lambda d: (scale * d)[..., None] * error)


@_loss_function
@_elementwise
def mean_absolute_error(y_true: Array, y_pred: Array) -> Terms:
    """Mean over the last axis of `|y_pred - y_true|`."""
    error = y_pred - y_true
    scale = 1.0 / error.shape[-1]
    return Terms(_mean(np.abs(error)), lambda d: (scale * d)[..., None] * np.sign(error))


@_loss_function
@_elementwise
def mean_absolute_percentage_error(y_true: Array, y_pred: Array) -> Terms:
    """100 times the mean over the last axis of `|(y_true - y_pred) / max(|y_true|, 1e-7)|`."""
    size = np.maximum(np.abs(y_true), EPSILON)
    error = (y_pred - y_true) / size
    scale = 100.0 / error.shape[-1]
    return Terms(
        100.0 * _mean(np.abs(error)), lambda d: (scale * d)[..., None] * np.sign(error) / size
    )


@_loss_function
@_elementwise
def mean_squared_logarithmic_error(y_true: Array, y_pred: Array) -> Terms:
    """Mean over the last axis of `(log(1 + y_pred) - log(1 + y_true))**2`; y at least 1e-7."""
    predictions = np.maximum(y_pred, EPSILON) + 1.0
    error = np.log(predictions) - np.log(np.maximum(y_true, EPSILON) + 1.0)
    scale = 2.0 / error.shape[-1]

    def backward(d: Array) -> Array:
        return (scale * d)[..., None] * error / predictions * (y_pred > EPSILON)

    return Terms(_mean(error * error), backward)


@_loss_function
@_elementwise
def huber(y_true: Array, y_pred: Array, delta: float = 1.0) -> Terms:
    """Mean over the last axis of e**2 / 2 if `|e| <= delta`, else `delta * (|e| - delta / 2)`."""
    error = y_pred - y_true
    inner = np.clip(error, -delta, delta)
    scale = 1.0 / error.shape[-1]
    # Both branches in one: inner is e, or delta with e's sign.
    return Terms(
        _mean(inner * (error - 0.5 * inner)),
        lambda d: (scale * d)[..., None] * inner,
    )


@_loss_function
@_elementwise
def log_cosh(y_true: Array, y_pred: Array) -> Terms:
    """Mean over the last axis of `log(cosh(y_pred - y_true))`."""
    error = y_pred - y_true
    size = np.abs(error)  # log(cosh) is even; this way no exponential overflows
    scale = 1.0 / error.shape[-1]
    return Terms(
        _mean(size + np.log1p(np.exp(-2.0 * size)) - math.log(2.0)),
        lambda d: (scale * d)[..., None] * np.tanh(error),
    )


@_loss_function
@_elementwise
def cosine_similarity(y_true: Array, y_pred: Array, axis: int = -1) -> Terms:
    """Minus the cosine of the angle between the vectors along `axis`: -1 is the best."""

    def inverse_norm(x: Array) -> Array:
        norm = np.sqrt(np.square(x).sum(axis=axis, keepdims=True))
        return 1.0 / np.maximum(norm, EPSILON)

    scale = inverse_norm(y_pred)
    target, prediction = y_true * inverse_norm(y_true), y_pred * scale
    cosine = (target * prediction).sum(axis=axis)

    def backward(d: Array) -> Array:
        # Shorter than epsilon, a vector is only scaled, by 1 / epsilon.
        turning = np.where(scale < 1.0 / EPSILON, np.expand_dims(cosine, axis), 0.0)
        return np.expand_dims(d, axis) * scale * (turning * prediction - target)

    return Terms(-cosine, backward)


# ---- Probabilities -------------------------------------------------------------------------------


@_loss_function
@_elementwise
def kl_divergence(y_true: Array, y_pred: Array) -> Terms:
    """Sum over the last axis of `y_true * log(y_true / y_pred)`, both clipped to [1e-7, 1]."""
    target, prediction = np.clip(y_true, EPSILON, 1), np.clip(y_pred, EPSILON, 1)
    inside = (y_pred >= EPSILON) & (y_pred <= 1)
    return Terms(
        (target * np.log(target / prediction)).sum(axis=-1),
        lambda d: -d[..., None] * target / prediction * inside,
    )


@_loss_function
@_elementwise
def poisson(y_true: Array, y_pred: Array) -> Terms:
    """Mean over the last axis of `y_pred - y_true * log(y_pred + 1e-7)`."""
    shifted = y_pred + EPSILON
    scale = 1.0 / y_pred.shape[-1]
    return Terms(
        _mean(y_pred - y_true * np.log(shifted)),
        lambda d: (scale * d)[..., None] * (1.0 - y_true / shifted),
    )


@_loss_function
@_same_shape
def binary_crossentropy(
    y_true: Array,
    y_pred: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Terms:
    """Mean over `axis` of `-y_true * log(p) - (1 - y_true) * log(1 - p)`.

    p is `y_pred` clipped to [1e-7, 1 - 1e-7], or its sigmoid with `from_logits`. Label smoothing s
    moves the targets to `y_true * (1 - s) + s / 2`.
    """
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    scale = 1.0 / y_pred.shape[axis]
    if from_logits:
        decay = np.exp(-np.abs(y_pred))  # in (0, 1], so nothing overflows
        losses = np.maximum(y_pred, 0.0) - y_pred * y_true + np.log1p(decay)
        slope = np.where(y_pred >= 0, 1.0, decay) / (1.0 + decay) - y_true
    else:
        p, inside = _clip_probabilities(y_pred)
        losses = -(y_true * np.log(p) + (1.0 - y_true) * np.log(1.0 - p))
        slope = (p - y_true) / (p * (1.0 - p)) * inside
    return Terms(_mean(losses, axis), lambda d: np.expand_dims(scale * d, axis) * slope)


@_loss_function
@_same_shape
def categorical_crossentropy(
    y_true: Array,
    y_pred: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Terms:
    """Sum over `axis` of `-y_true * log(p)`.

    p is `y_pred` divided by its sum over the classes and clipped to [1e-7, 1 - 1e-7], or its
    softmax with `from_logits`. Label smoothing s moves the targets to
    `y_true * (1 - s) + s / classes`.
    """
    if y_pred.shape[-1] == 1:
        warnings.warn(
            "In loss categorical_crossentropy, expected y_pred.shape to be (batch_size, "
            f"num_classes) with num_classes > 1. Received: y_pred.shape={y_pred.shape}. "
            "Consider using 'binary_crossentropy' if you only have 2 classes.",
            SyntaxWarning,
            stacklevel=2,
        )
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_true.shape[-1]
    return _crossentropy(y_true, y_pred, from_logits, axis)


@_loss_function
def sparse_categorical_crossentropy(
    y_true: Array,
    y_pred: Array,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Terms:
    """Categorical crossentropy for targets that are class numbers.

    `y_true` has the shape of `y_pred` without the class axis, or with 1 there. Where it equals
    `ignore_class`, the value is 0 and does not count.
    """
    if y_true.ndim == y_pred.ndim and y_true.shape[axis] == 1:
        y_true = np.squeeze(y_true, axis)
    classes = y_pred.shape[axis]
    expected = list(y_pred.shape)
    del expected[axis]
    if y_true.shape != tuple(expected):
        raise ValueError(
            "sparse_categorical_crossentropy: expected y_true of the shape of y_pred without the "
            f"classes, {tuple(expected)}, got y_true.shape={y_true.shape}"
        )
    valid = None
    if ignore_class is not None:
        valid = y_true != ignore_class
        y_true = np.where(valid, y_true, 0)
        y_pred = np.where(np.expand_dims(valid, axis), y_pred, 1.0)
    if y_true.size and not (y_true.min() >= 0 and y_true.max() < classes):
        raise ValueError(
            f"sparse_categorical_crossentropy: expected class numbers from 0 to {classes - 1}, "
            f"got {y_true.min():g} to {y_true.max():g}"
        )
    one_hot = np.zeros_like(y_pred)
    np.put_along_axis(one_hot, np.expand_dims(y_true.astype(np.int64), axis), 1.0, axis)
    values, backward, _ = _crossentropy(one_hot, y_pred, from_logits, axis)
    if valid is None:
        return Terms(values, backward)
    return Terms(np.where(valid, values, 0.0), lambda d: backward(d * valid), valid)


def _clip_probabilities(p: Array) -> tuple[Array, Array]:
    """`p` clipped, and where the clipping leaves a slope."""
    low, high = EPSILON, 1.0 - EPSILON
    return np.clip(p, low, high), (p >= low) & (p <= high)


def _crossentropy(target: Array, y_pred: Array, from_logits: bool, axis: int) -> Terms:
    if from_logits:
        shifted = y_pred - y_pred.max(axis=axis, keepdims=True)
        exponentials = np.exp(shifted)
        total = exponentials.sum(axis=axis, keepdims=True)
        losses = target * (np.log(total) - shifted)
        slope = exponentials / total * target.sum(axis=axis, keepdims=True) - target
    else:
        total = y_pred.sum(axis=axis, keepdims=True)
        share = y_pred / total
        p, inside = _clip_probabilities(share)
        losses = -target * np.log(p)
        ratio = -target / p * inside
        # The shares depend on all classes of a sample through their sum.
        slope = (ratio - (ratio * share).sum(axis=axis, keepdims=True)) / total
    return Terms(losses.sum(axis=axis), lambda d: np.expand_dims(d, axis) * slope)


# ---- Margins -------------------------------------------------------------------------------------


def _signed_labels(y_true: Array) -> Array:
    """Labels 0 and 1 as -1 and 1; if there is any other number, as they are."""
    binary = ((y_true == 0) | (y_true == 1)).all()
    return 2.0 * y_true - 1.0 if binary else y_true


@_loss_function
@_elementwise
def hinge(y_true: Array, y_pred: Array) -> Terms:
    """Mean over the last axis of `max(1 - y_true * y_pred, 0)`; labels -1 and 1, or 0 and 1."""
    y_true = _signed_labels(y_true)
    margin = np.maximum(1.0 - y_true * y_pred, 0.0)
    scale = -1.0 / y_pred.shape[-1]
    return Terms(_mean(margin), lambda d: (scale * d)[..., None] * y_true * (margin > 0))


@_loss_function
@_elementwise
def squared_hinge(y_true: Array, y_pred: Array) -> Terms:
    """Mean over the last axis of `max(1 - y_true * y_pred, 0)**2`; labels as for `hinge`."""
    y_true = _signed_labels(y_true)
    margin = np.maximum(1.0 - y_true * y_pred, 0.0)
    scale = -2.0 / y_pred.shape[-1]
    return Terms(_mean(margin * margin), lambda d: (scale * d)[..., None] * y_true * margin)


@_loss_function
@_elementwise
def categorical_hinge(y_true: Array, y_pred: Array) -> Terms:
    """`max(1 + max((1 - y_true) * y_pred) - sum(y_true * y_pred), 0)` over the last axis."""
    others = (1.0 - y_true) * y_pred
    worst = others.max(axis=-1, keepdims=True)
    values = np.maximum(worst[..., 0] - (y_true * y_pred).sum(axis=-1) + 1.0, 0.0)

    def backward(d: Array) -> Array:
        chosen = others == worst
        share = chosen / chosen.sum(axis=-1, keepdims=True)  # ties share the slope
        return (d * (values > 0))[..., None] * (share * (1.0 - y_true) - y_true)

    return Terms(values, backward)


# ---- Loss objects --------------------------------------------------------------------------------

_REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)


class Loss:
    """Base class of losses.

    A subclass defines `call(y_true, y_pred)`, which returns one value per sample or step. To be
    trained with it also defines `backward(y_true, y_pred, d_values)`, which returns the derivative
    by `y_pred`, given that by those values.

    Args:
        name: Defaults to the class's name in snake case.
        reduction: `"sum_over_batch_size"` or `"mean"` (the sum of the weighted values divided by
            their number), `"sum"`, `"mean_with_sample_weight"` (divided by the sum of the weights),
            `"none"` or None (no reduction).
        dtype: The dtype to compute in. Defaults to that of the predictions.

    Raises:
        ValueError: `reduction` is unknown.
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(
                "Invalid value for argument `reduction`. Expected one of "
                f"{_REDUCTIONS}. Received: reduction={reduction}"
            )
        self.name = name or unique_name(type(self).__name__)
        self.reduction = reduction
        self.dtype = None if dtype is None else np.dtype(dtype)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """One value per sample or step."""
        raise NotImplementedError(f"loss {self.name!r}: expected a call(y_true, y_pred) method")

    def backward(self, y_true: Array, y_pred: Array, d_values: Array) -> Array:
        """The derivative by `y_pred`, given that by what `call` returned."""
        raise TypeError(
            f"loss {self.name!r}: training needs its gradient, expected a method "
            "backward(y_true, y_pred, d_values)"
        )

    def _terms(self, y_true: Any, y_pred: Any) -> Terms:
        def terms(y_true: Array, y_pred: Array) -> Terms:
            values = np.asarray(self.call(y_true, y_pred))
            return Terms(values, lambda d: np.asarray(self.backward(y_true, y_pred, d)))

        return _terms(terms, y_true, y_pred, self.dtype)

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None
    ) -> Any:
        """The loss.

        Args:
            y_true: Targets, `(batch, ...)`.
            y_pred: Predictions, `(batch, ..., n)`.
            sample_weight: `(batch,)` or `(batch, time)`: factors of the values.
            mask: `(batch,)` or `(batch, time)`: which values count. A mean is over those.

        Returns:
            A float; with reduction `"none"` the array of weighted values.

        Raises:
            ValueError: The shapes do not fit each other.
        """
        values, _, mask = self._masked_terms(y_true, y_pred, mask)
        weights = _weights(values, sample_weight, mask, self.reduction)
        weighted, _ = _apply_weights(values, weights)
        if self.reduction in ("none", None):
            return weighted
        divisor = _divisor(self.reduction, weighted, weights)
        return float(weighted.sum()) / divisor if divisor else 0.0

    def value_and_gradient(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None
    ) -> tuple[float, Array]:
        """The loss and its derivative by `y_pred`, an array of the shape and dtype of that.

        Takes the arguments of `__call__`, and raises what that raises.

        Raises:
            ValueError: The reduction is `"none"`: only a number has a gradient.
            TypeError: The loss does not give its gradient.
        """
        if self.reduction in ("none", None):
            raise ValueError(
                f"loss {self.name!r}: training needs a reduction to one number, "
                f"got reduction={self.reduction!r}"
            )
        values, backward, mask = self._masked_terms(y_true, y_pred, mask)
        weights = _weights(values, sample_weight, mask, self.reduction)
        weighted, factors = _apply_weights(values, weights)
        divisor = _divisor(self.reduction, weighted, weights)
        scale = 1.0 / divisor if divisor else 0.0
        if factors is None:
            d_values = np.empty(values.shape, values.dtype)
            d_values.fill(scale)
        else:
            full = np.broadcast_to(factors * scale, weighted.shape)
            if weighted.ndim > values.ndim:
                full = full.reshape(values.shape)
            d_values = _sum_to_shape(full, values.shape)
        gradient = backward(d_values)
        given = np.asarray(y_pred).dtype
        if given.kind == "f":
            gradient = gradient.astype(given, copy=False)
        return float(np.add.reduce(weighted, axis=None)) * scale, gradient

    def _masked_terms(self, y_true: Any, y_pred: Any, mask: Any) -> Terms:
        if mask is None:
            return self._terms(y_true, y_pred)
        mask = np.asarray(mask).astype(bool, copy=False)
        y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
        if y_pred.ndim == y_true.ndim + 1 == mask.ndim + 1 and y_pred.shape[-1] == 1:
            # Keep the axis the mask is for: a value per step, not per sample.
            y_true = y_true[..., None]
        values, backward, own = self._terms(y_true, y_pred)
        return Terms(values, backward, mask if own is None else mask & own)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The loss that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def merge_mask(sample_weight: Any, mask: Any, dtype: Any, scale: bool) -> Array | None:
    """Sample weights that are 0 where `mask` is False; None if both are None.

    With `scale`, the others grow by total / valid, so that a mean over all values is one over the
    valid ones (Keras's rule).
    """
    if mask is None:
        return None if sample_weight is None else np.asarray(sample_weight, dtype)
    mask = np.asarray(mask).astype(bool, copy=False)
    valid = int(np.count_nonzero(mask))
    factor = mask.size / max(valid, 1) if scale else 1.0
    weights: Array = np.where(mask, factor, 0.0).astype(dtype)
    if sample_weight is None:
        return weights
    weights, given = same_rank(weights, np.asarray(sample_weight, dtype))
    given, weights = _lead(given, weights), _lead(weights, given)
    try:
        return given * weights
    except ValueError:
        raise ValueError(
            f"sample_weight: expected a shape that fits the mask's {weights.shape}, "
            f"got {given.shape}"
        ) from None


def _lead(a: Array, b: Array) -> Array:
    """`a` with axes of length 1 appended up to the rank of `b`: what it has are the first axes."""
    return a.reshape(a.shape + (1,) * (b.ndim - a.ndim)) if a.ndim < b.ndim else a


def _weights(values: Array, sample_weight: Any, mask: Any, reduction: str | None) -> Array | None:
    scale = reduction in ("mean", "sum_over_batch_size")
    return merge_mask(sample_weight, mask, values.dtype, scale)


def _apply_weights(values: Array, weights: Array | None) -> tuple[Array, Array | None]:
    """`values * weights`, and the weights as they were multiplied."""
    if weights is None:
        return values, None
    aligned, factors = same_rank(values, weights)
    factors = _lead(factors, aligned)
    try:
        return aligned * factors, factors
    except ValueError:
        raise ValueError(
            "sample_weight or mask: expected a shape that fits the losses' "
            f"{values.shape}, got {weights.shape}"
        ) from None


def _divisor(reduction: str | None, weighted: Array, weights: Array | None) -> float:
    if reduction == "sum":
        return 1.0
    if reduction == "mean_with_sample_weight" and weights is not None:
        return float(weights.sum())
    return float(weighted.size)


class LossFunctionWrapper(Loss):
    """A loss object for a function that gives one value per sample or step.

    Args:
        fn: `fn(y_true, y_pred, **kwargs)`. The functions of this module come with their gradients;
            with any other the loss can be evaluated but not trained.
        reduction: As for `Loss`.
        name: Defaults to the function's name.
        dtype: As for `Loss`.
        kwargs: Further arguments for `fn`.
    """

    def __init__(
        self,
        fn: Function,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name or to_snake_case(getattr(fn, "__name__", "loss")), reduction, dtype)
        self.fn = fn
        self._settings = kwargs

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """One value per sample or step."""
        return self.fn(y_true, y_pred, **self._settings)

    def _terms(self, y_true: Any, y_pred: Any) -> Terms:
        terms = getattr(self.fn, "terms", None)
        if terms is None:
            return super()._terms(y_true, y_pred)
        return _terms(terms, y_true, y_pred, self.dtype, **self._settings)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        config = {**super().get_config(), **self._settings}
        if type(self) is LossFunctionWrapper:
            config["fn"] = _registry.serialize(self.fn)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The loss that `get_config` described."""
        if isinstance(config.get("fn"), Mapping):
            config = {**config, "fn": _registry.deserialize(config["fn"])}
        return cls(**config)


class _Named(LossFunctionWrapper):
    """A loss whose function takes no settings."""

    _function: Function
    _name: str

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(type(self)._function, reduction, name or self._name, dtype)


class MeanSquaredError(_Named):
    """Mean of the squared errors: see `mean_squared_error`."""

    _function = staticmethod(mean_squared_error)
    _name = "mean_squared_error"


class MeanAbsoluteError(_Named):
    """Mean of the absolute errors: see `mean_absolute_error`."""

    _function = staticmethod(mean_absolute_error)
    _name = "mean_absolute_error"


class MeanAbsolutePercentageError(_Named):
    """Mean of the relative errors in percent: see `mean_absolute_percentage_error`."""

    _function = staticmethod(mean_absolute_percentage_error)
    _name = "mean_absolute_percentage_error"


class MeanSquaredLogarithmicError(_Named):
    """Mean squared difference of logarithms: see `mean_squared_logarithmic_error`."""

    _function = staticmethod(mean_squared_logarithmic_error)
    _name = "mean_squared_logarithmic_error"


class LogCosh(_Named):
    """Mean logarithm of the hyperbolic cosine of the errors: see `log_cosh`."""

    _function = staticmethod(log_cosh)
    _name = "log_cosh"


class KLDivergence(_Named):
    """Kullback-Leibler divergence: see `kl_divergence`."""

    _function = staticmethod(kl_divergence)
    _name = "kl_divergence"


class Poisson(_Named):
    """Poisson loss: see `poisson`."""

    _function = staticmethod(poisson)
    _name = "poisson"


class Hinge(_Named):
    """Hinge loss: see `hinge`."""

    _function = staticmethod(hinge)
    _name = "hinge"


class SquaredHinge(_Named):
    """Squared hinge loss: see `squared_hinge`."""

    _function = staticmethod(squared_hinge)
    _name = "squared_hinge"


class CategoricalHinge(_Named):
    """Hinge loss of classes: see `categorical_hinge`."""

    _function = staticmethod(categorical_hinge)
    _name = "categorical_hinge"


class Huber(LossFunctionWrapper):
    """Squared for small, absolute for large errors: see `huber`."""

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(huber, reduction, name, dtype, delta=delta)


class CosineSimilarity(LossFunctionWrapper):
    """Minus the cosine between vectors: see `cosine_similarity`."""

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "cosine_similarity",
        dtype: Any = None,
    ) -> None:
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)


class BinaryCrossentropy(LossFunctionWrapper):
    """Crossentropy of independent yes/no labels: see `binary_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            binary_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalCrossentropy(LossFunctionWrapper):
    """Crossentropy of one-hot classes: see `categorical_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Crossentropy of class numbers: see `sparse_categorical_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            sparse_categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )


_registry = Registry(
    "keras.losses",
    "loss",
    [
        BinaryCrossentropy,
        CategoricalCrossentropy,
        CategoricalHinge,
        CosineSimilarity,
        Hinge,
        Huber,
        KLDivergence,
        LogCosh,
        LossFunctionWrapper,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanSquaredError,
        MeanSquaredLogarithmicError,
        Poisson,
        SparseCategoricalCrossentropy,
        SquaredHinge,
        binary_crossentropy,
        categorical_crossentropy,
        categorical_hinge,
        cosine_similarity,
        hinge,
        huber,
        kl_divergence,
        log_cosh,
        mean_absolute_error,
        mean_absolute_percentage_error,
        mean_squared_error,
        mean_squared_logarithmic_error,
        poisson,
        sparse_categorical_crossentropy,
        squared_hinge,
    ],
    {
        "bce": binary_crossentropy,
        "BCE": binary_crossentropy,
        "kld": kl_divergence,
        "KLD": kl_divergence,
        "mae": mean_absolute_error,
        "MAE": mean_absolute_error,
        "mape": mean_absolute_percentage_error,
        "MAPE": mean_absolute_percentage_error,
        "mse": mean_squared_error,
        "MSE": mean_squared_error,
        "msle": mean_squared_logarithmic_error,
        "MSLE": mean_squared_logarithmic_error,
    },
)


def serialize(loss: Any) -> dict[str, Any]:
    """`loss`, an object or a function, as the dict that Keras's files hold."""
    return _registry.serialize(loss)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The loss object or function that a name or a dict from `serialize` describes."""
    return _registry.deserialize(config, custom_objects)


def get(identifier: Any) -> Loss | None:
    """The loss object for an identifier.

    Unlike Keras, which gives the bare function for `"mse"` and the like, this wraps it in a
    `LossFunctionWrapper` of that name.

    Args:
        identifier: A name (`"mse"`, `"mean_squared_error"`, `"MeanSquaredError"`, ...), a dict from
            `serialize`, a `Loss` object or class, a function, or None.

    Raises:
        ValueError: It is none of these, or the name is unknown.
    """
    found = _registry.get(identifier)
    if found is None or isinstance(found, Loss):
        return found
    return LossFunctionWrapper(found, name=identifier if isinstance(identifier, str) else None)


def resolve(identifier: Any, y_true: Any, y_pred: Any) -> Loss | None:
    """As `get`, with `"crossentropy"` (`"ce"`) chosen by the shapes of targets and predictions."""
    if str(identifier).lower() not in ("crossentropy", "ce"):
        return get(identifier)
    kind = classification_kind(np.shape(y_true), np.shape(y_pred))
    name = f"{kind}_crossentropy"
    return LossFunctionWrapper(_registry.find(name), name=str(identifier))


def classification_kind(true_shape: tuple[int, ...], pred_shape: tuple[int, ...]) -> str:
    """`"binary"`, `"sparse_categorical"` or `"categorical"`, by Keras's rule on the shapes."""
    if pred_shape[-1] == 1:
        return "binary"
    if len(true_shape) < len(pred_shape) or true_shape[-1] == 1:
        return "sparse_categorical"
    return "categorical"
