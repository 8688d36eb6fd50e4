"""The variables of layers and optimizers: arrays that change only where it is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

__all__ = ["Variable"]

Array = np.ndarray[Any, np.dtype[Any]]


class Variable(NDArrayOperatorsMixin):
    """An array with a name, a gradient and a version that counts its changes.

    Everything a variable hands out is read-only: its contents change through `assign` or through an
    optimizer only. Both count `version` up, and that is what packed copies of the weights are keyed
    by, so none of them can go stale.

    A variable takes part in NumPy expressions (`x @ kernel + bias`) with its current value.

    Args:
        value: Array-like with the initial contents. It is copied.
        name: Last part of the path, for example `"kernel"`.
        trainable: Whether optimizers update it.
        regularizer: Callable on the value giving a scalar loss, or None.
        constraint: Callable that maps the value to an allowed one after each update, or None.
        dtype: Defaults to that of `value` if it is an array, else to `float32`.
        path: Full name, `<model>/<layer>/<name>`. Defaults to `name`.

    Raises:
        TypeError: `value` is not numeric.
    """

    def __init__(
        self,
        value: Any,
        name: str = "variable",
        trainable: bool = True,
        regularizer: Callable[[Any], Any] | None = None,
        constraint: Callable[[Any], Any] | None = None,
        *,
        dtype: Any = None,
        path: str | None = None,
    ) -> None:
        if dtype is None:
            dtype = getattr(value, "dtype", "float32")
        data = np.array(value, dtype=dtype, order="C", subok=False)
        if data.dtype.kind not in "fiub":
            raise TypeError(f"Variable {name!r}: expected numeric contents, got dtype {data.dtype}")
        self.name = name
        self.path = name if path is None else path
        self.trainable = trainable
        self.regularizer = regularizer
        self.constraint = constraint
        self.gradient: Array | None = None
        self.version = 0
        self._bind(data)

    def _bind(self, data: Array) -> None:
        self._data = data
        self._view = data.view()
        self._view.flags.writeable = False

    def _changed(self) -> None:
        """To be called by whoever wrote into `_data`."""
        self.version += 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return tuple(self._data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of the entries."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._data.size

    @property
    def value(self) -> Array:
        """The contents as a read-only view, which follows later changes."""
        return self._view

    def numpy(self) -> Array:
        """The contents as a read-only copy, which keeps what they are now."""
        copy = self._data.copy()
        copy.flags.writeable = False
        return copy

    def assign(self, value: Any) -> Variable:
        """Replaces the contents by `value`, cast to this variable's dtype, and returns `self`.

        Raises:
            ValueError: `value` does not have this variable's shape.
        """
        new = np.asarray(value)
        if new.shape != self.shape:
            raise ValueError(
                f"Variable {self.path!r}: expected a value of shape {self.shape}, "
                f"got shape {new.shape}"
            )
        np.copyto(self._data, new, casting="unsafe")
        self._changed()
        return self

    def assign_add(self, value: Any) -> Variable:
        """Adds `value`, which may broadcast, to the contents and returns `self`."""
        return self.assign(self._data + value)

    def assign_sub(self, value: Any) -> Variable:
        """Subtracts `value`, which may broadcast, from the contents and returns `self`."""
        return self.assign(self._data - value)

    def add_gradient(self, gradient: Any) -> None:
        """Adds `gradient`, of this variable's shape, to what backward passes have left so far.

        Raises:
            ValueError: `gradient` does not have this variable's shape.
        """
        data = self._data
        if type(gradient) is not np.ndarray or gradient.dtype is not data.dtype:
            gradient = np.asarray(gradient, data.dtype)
        if gradient.shape != data.shape:
            raise ValueError(
                f"Variable {self.path!r}: expected a gradient of shape {self.shape}, "
                f"got shape {gradient.shape}"
            )
        # Never in place: the first gradient may be an array that its sender uses further.
        self.gradient = gradient if self.gradient is None else self.gradient + gradient

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy:
            return np.array(self._data, dtype)
        if dtype is None or np.dtype(dtype) == self.dtype:
            return self._view
        if copy is False:
            raise ValueError(
                f"Variable {self.path!r}: {self.dtype} as {dtype} needs a copy, got copy=False"
            )
        return self._data.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(array, Variable) for array in kwargs.get("out", ())):
            raise TypeError(f"Variable {self.path!r}: expected a change through assign(), got out=")
        arrays = [i._view if isinstance(i, Variable) else i for i in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        return self._view[index]

    def __len__(self) -> int:
        return len(self._data)

    def __float__(self) -> float:
        return float(self._data)

    def __int__(self) -> int:
        return int(self._data)

    # Comparisons give arrays, as NumPy's do, but a variable is a thing with an identity.
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_view"]  # a copied view would no longer follow the copied data
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind(self._data)
