"""How batches come to `fit`, `evaluate` and `predict`: from arrays, iterables and data sets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np

from .utils import Array, shared_generator

Batch = tuple[Any, Any, Any]  # x, y, sample_weight; the latter two may be None


def as_batch(item: Any) -> Batch:
    """What an iterable gave, x or (x,) or (x, y) or (x, y, sample_weight), as a triple of arrays.

    Raises:
        ValueError: It is a longer tuple.
    """
    parts = item if isinstance(item, tuple | list) and len(item) <= 3 else (item,)
    if isinstance(item, tuple) and len(item) > 3:
        raise ValueError(
            f"batch: expected x, (x, y) or (x, y, sample_weight), got a tuple of {len(item)}"
        )
    x, y, weight = (*parts, None, None)[:3]
    return (
        numeric(x, "x"),
        None if y is None else numeric(y, "y"),
        None if weight is None else numeric(weight, "sample_weight"),
    )


def numeric(value: Any, subject: str, dtype: Any = None) -> Array:
    """`value` as an array; floats in `dtype` if that is given.

    Raises:
        TypeError: It does not consist of numbers.
        ValueError: It is not an array, or has no axes.
    """
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{subject}: expected an array, got {error}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{subject}: expected an array of numbers, got {type(value).__name__} "
            f"of dtype {array.dtype}"
        )
    if array.ndim == 0:
        raise ValueError(f"{subject}: expected an array with a batch axis, got {value!r}")
    if dtype is not None and array.dtype.kind == "f":
        array = array.astype(dtype, copy=False)
    return array


def class_weights(y: Any, class_weight: Any) -> Array:
    """A weight per sample from one per class; classes that are not named weigh 1.

    Args:
        y: Class numbers (batch,) or (batch, 1), or one-hot rows (batch, classes).
        class_weight: Class number to weight.

    Raises:
        ValueError: A key is not an integer, or y has another shape.
        TypeError: `class_weight` is not a dict.
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight: expected a dict, got {type(class_weight).__name__}")
    key: Any
    for key in class_weight:
        if isinstance(key, bool) or not isinstance(key, Integral):
            raise ValueError(f"class_weight: expected integers as keys, got {key!r}")
    labels = np.asarray(y)
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(axis=-1)
    if labels.ndim != 1:
        raise ValueError(
            f"class_weight: expected y of shape (batch,), (batch, 1) or (batch, classes), "
            f"got {np.shape(y)}"
        )
    labels = np.round(labels).astype(np.int64)
    weights = np.ones(len(labels), np.float32)
    for key, weight in class_weight.items():
        weights[labels == int(key)] = weight
    return weights


def split_for_validation(
    x: Any, y: Any, sample_weight: Any, fraction: float
) -> tuple[Batch, Batch]:
    """The first samples for training, the last `fraction` of them for validation.

    Raises:
        ValueError: x is not an array, or one of the two parts is empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_split: expected a number between 0 and 1, got {fraction}")
    if not is_array(x):
        raise ValueError(
            f"`validation_split` is only supported for arrays, got x of type {type(x).__name__}"
        )
    arrays = [None if a is None else np.asarray(a) for a in (x, y, sample_weight)]
    check_same_length(*arrays)
    samples = len(arrays[0])  # type: ignore[arg-type]
    split = math.floor(samples * (1 - fraction))
    if split in (0, samples):
        raise ValueError(
            f"Training data contains {samples} samples, which is not sufficient to split it into a "
            f"validation and training set as specified by `validation_split={fraction}`. Either "
            "provide more data, or a different value for the `validation_split` argument."
        )
    first, last = (
        tuple(None if a is None else a[part] for a in arrays)
        for part in (slice(split), slice(split, None))
    )
    return first, last  # type: ignore[return-value]


def check_same_length(x: Any, y: Any, sample_weight: Any) -> None:
    """Raises ValueError unless the arrays that are given have the same number of samples."""
    named = {"x": x, "y": y, "sample_weight": sample_weight}
    sizes = {name: len(array) for name, array in named.items() if array is not None}
    if len(set(sizes.values())) > 1:
        lines = "".join(f"'{name}' sizes: {size}\n" for name, size in sizes.items())
        raise ValueError(
            "Data cardinality is ambiguous. Make sure all arrays contain the same number of "
            f"samples.{lines}"
        )


def is_array(x: Any) -> bool:
    """Whether x is one array of samples: an array of any library, a table, or a list."""
    return isinstance(x, np.ndarray | list | tuple) or hasattr(x, "__array__")


class Batches:
    """The batches of one `fit`, `evaluate` or `predict`, epoch after epoch.

    Args:
        x: Inputs: an array, or what gives the targets, too: a generator or other iterable of
            batches, or an object with `__getitem__(batch)` and `__len__`, as Keras's PyDataset.
        y, sample_weight: For arrays only.
        batch_size: For arrays only; 32 by default.
        steps: Batches per epoch, if not all; what is left over goes on in the next epoch.
        shuffle: Whether the samples ("batch": the batches) come in another order every epoch.
        class_weight: Weight per class number.
        dtype: Of the floats in arrays.

    Raises:
        ValueError: Sizes do not fit, there are no samples, or an argument is not for such an x.
        TypeError: An array is not numeric.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
        steps: int | None = None,
        shuffle: bool | str = False,
        class_weight: Any = None,
        dtype: Any = None,
    ) -> None:
        number: Any
        for name, number in (("batch_size", batch_size), ("steps", steps)):
            if number is not None and (not isinstance(number, Integral) or number < 1):
                raise ValueError(f"{name}: expected a positive integer, got {number!r}")
        self.steps = None if steps is None else int(steps)
        self._shuffle = shuffle
        self._class_weight = class_weight
        self._running: Iterator[Batch] | None = None
        self._position = 0  # in what is running
        self._batches = 0  # of all epochs so far
        self._kind = type(x).__name__
        self._peeked = False
        self._exhausted = False
        self._arrays: list[Any] | None = None
        self._source = x
        if x is None:
            raise ValueError("x: expected data, got None")
        if is_array(x):
            if sample_weight is not None and class_weight is not None:
                raise ValueError("You cannot `class_weight` and `sample_weight` at the same time.")
            self._arrays = [
                None if a is None else numeric(a, name, dtype)
                for name, a in (("x", x), ("y", y), ("sample_weight", sample_weight))
            ]
            check_same_length(*self._arrays)
            if class_weight is not None:
                if y is None:
                    raise ValueError("class_weight: expected y to be given, too, got None")
                self._arrays[2] = class_weights(self._arrays[1], class_weight)
            self._samples = len(self._arrays[0])
            if self._samples == 0:
                raise ValueError(f"x: expected at least one sample, got shape {np.shape(x)}")
            if batch_size is None:
                batch_size = 32 if steps is None else math.ceil(self._samples / steps)
            self._batch_size = int(batch_size)
            self._length: int | None = math.ceil(self._samples / self._batch_size)
            return
        self._is_dataset = hasattr(x, "__getitem__") and hasattr(x, "__len__")
        if isinstance(x, Mapping) or not (self._is_dataset or hasattr(x, "__iter__")):
            raise TypeError(
                "x: expected an array, an iterable of batches, or an object with __getitem__ and "
                f"__len__, got {type(x).__name__}"
            )
        for name, value in (
            ("y", y),
            ("sample_weight", sample_weight),
            ("batch_size", batch_size),
        ):
            if value is not None:
                raise ValueError(
                    f"`{name}` should not be passed when x gives whole batches, as "
                    f"{type(x).__name__} does. Received: {name}={value!r}"
                )
        self._length = len(x) if hasattr(x, "__len__") else None
        if self._length == 0:
            raise ValueError(f"x: expected at least one batch, got an empty {self._kind}")

    @property
    def num_batches(self) -> int | None:
        """Batches per epoch; None while unknown."""
        return self.steps or self._length

    def first(self) -> Batch:
        """The first batch, which also comes in the first epoch."""
        if self._arrays is not None:
            return self._slice(slice(0, self._batch_size))
        iterator = self._iterate()
        try:
            batch = next(iterator)
        except StopIteration:
            raise ValueError(f"x: expected at least one batch, got an empty {self._kind}") from None
        self._running, self._position = _chain(batch, iterator), 0
        self._peeked = True
        return batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch. Warns if there are fewer than `steps`."""
        if self._running is None or (self.steps is None and not self._peeked):
            self._running, self._position = self._iterate(), 0
        self._peeked = False
        given = 0
        for batch in self._running:
            self._position += 1
            self._batches += 1
            yield batch
            given += 1
            if given == self.steps:
                if self._position == self._length:
                    self._running = None
                return  # the rest comes in the next epoch
        self._running = None
        if self._batches == 0:
            raise ValueError(f"x: expected at least one batch, got an empty {self._kind}")
        # Keras warns where a promise is broken: `steps` batches, or another epoch.
        if given == 0 or (self.steps is not None and given < self.steps):
            self._exhausted = given == 0
            warnings.warn(
                "Your input ran out of data; interrupting training. Make sure that your dataset or "
                "generator can generate at least `steps_per_epoch * epochs` batches.",
                UserWarning,
                stacklevel=4,
            )
        elif self.steps is None and self._length is None:
            self._length = given

    @property
    def exhausted(self) -> bool:
        """Whether the latest epoch had no batches at all."""
        return self._exhausted

    def _iterate(self) -> Iterator[Batch]:
        """All batches, once."""
        if self._arrays is not None:
            yield from self._iterate_arrays()
            return
        items: Any = self._source
        if self._is_dataset:
            order = np.arange(len(self._source))
            if self._shuffle:
                shared_generator().shuffle(order)
            items = (self._source[int(index)] for index in order)
        for item in items:
            x, y, weight = as_batch(item)
            if self._class_weight is not None:
                if weight is not None:
                    raise ValueError(
                        "You cannot `class_weight` and `sample_weight` at the same time."
                    )
                weight = class_weights(y, self._class_weight)
            yield x, y, weight
        if hasattr(self._source, "on_epoch_end"):
            self._source.on_epoch_end()

    def _iterate_arrays(self) -> Iterator[Batch]:
        size = self._batch_size
        starts = np.arange(0, self._samples, size)
        if self._shuffle == "batch":
            shared_generator().shuffle(starts)
        elif self._shuffle:
            order = shared_generator().permutation(self._samples)
            for start in starts:
                yield self._slice(order[start : start + size])
            return
        for start in starts:
            yield self._slice(slice(int(start), int(start) + size))

    def _slice(self, rows: Any) -> Batch:
        assert self._arrays is not None
        if isinstance(rows, slice):
            x, y, weight = (None if a is None else a[rows] for a in self._arrays)
        else:  # take is a third of indexing where rows are short
            x, y, weight = (None if a is None else a.take(rows, axis=0) for a in self._arrays)
        return x, y, weight


def _chain(first: Batch, rest: Iterator[Batch]) -> Iterator[Batch]:
    yield first
    yield from rest
