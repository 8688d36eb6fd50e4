"""Streams: a model that takes one time step after another, and pools of them for servers.

Both run the C++ library's own `Stream` and `StreamPool`, on a snapshot of the weights that is
handed over as a deployment file in memory: what streams here streams from that file in C++ too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core

__all__ = ["Stream", "StreamPool"]


def _engine_model(model: Any, caller: str) -> _core.Model:
    if not getattr(model, "built", False) or not hasattr(model, "layers"):
        raise ValueError(f"{caller}: expected a built Sequential model, got {model!r}")
    from .saving import safetensors

    return _core.Model(safetensors.serialize(model, caller))


class Stream(_core.Stream):
    """The states of `batch_size` sequences that go through a model side by side, step by step.

    Each step gives, bit for bit, what `model.predict` would give for it.  The weights are those of
    the moment when the stream was made.  The `return_sequences` of the last recurrent layer does
    not matter: a stream answers at every step.  `copy.copy` copies the states.  One thread at a
    time may use a stream.

    Args:
        model: A built Sequential model.
        batch_size: Sequences side by side.

    Call:
        `y = stream.step(x)` with x (batch_size, features) gives y (batch_size, outputs), of the
        model's dtype. `stream.step(x, out=y)` writes to y instead, which must be C-contiguous, of
        that dtype and not overlap x; with such an x too, it allocates nothing. A model that begins
        with an `Embedding` takes ids, (batch_size,) or (batch_size, 1).

        `stream.reset(rows=None)` sets the states of the given rows, or of all, to zero.

        `stream.state` is a list per recurrent layer of lists of its states, h first, each a copy
        (batch_size, units); such a nested list can be assigned.

    Raises:
        ValueError: The model has a layer that cannot run step by step (`Bidirectional`,
            `TimeDistributed`, `go_backwards`, `Flatten` over time) or that is not built in; in
            calls, shapes that do not fit.
        TypeError: Arrays that are not numeric.
    """

    def __init__(self, model: Any, batch_size: int = 1) -> None:
        _check_count("Stream", "batch_size", batch_size)
        super().__init__(_engine_model(model, "Stream"), int(batch_size))

    def __copy__(self) -> Stream:
        other = type(self).__new__(type(self))
        _core.Stream.__init__(other, self)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        return self.__copy__()


class StreamPool(_core.StreamPool):
    """Up to `capacity` independent streams of one model, which step in groups.

    A server opens a stream per client; `step` takes whichever have a new input through the layers
    as one batch, on all threads. Each gets, bit for bit, what it would get alone. Python threads
    may share a pool; they take turns.

    Args:
        model: A built Sequential model, whose weights are copied.
        capacity: How many streams may be open at once; memory for all is taken here.

    Raises:
        ValueError: As `Stream`; in calls, ids that are not open or come twice, or shapes that do
            not fit, before anything has changed.
        MemoryError: There is not enough memory for so many.
    """

    def __init__(self, model: Any, capacity: int) -> None:
        _check_count("StreamPool", "capacity", capacity)
        super().__init__(_engine_model(model, "StreamPool"), int(capacity))

    def open(self) -> int:
        """Return the id of a new stream with zero states.

        Raises:
            ValueError: `capacity` streams are open.
        """
        return super().open()

    def step(self, ids: Any, x: Any, out: Any = None) -> Any:
        """Take one step with some streams.

        Args:
            ids: n ids of open streams, each once.
            x: (n, features); row i is for the stream `ids[i]`.
            out: Where the results go, (n, outputs), or None for a new array.
        """
        return super().step(_ids(ids, "StreamPool.step"), x, out)

    def reset(self, ids: Any) -> None:
        """Set the states of some streams, one id or many, to zero."""
        super().reset(_ids(ids, "StreamPool.reset"))

    def close(self, id: int) -> None:
        """Close a stream; its id may come again from `open`."""
        super().close(int(_ids(id, "StreamPool.close")[0]))


def _check_count(subject: str, name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{subject}: expected {name} to be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{subject}: expected {name} to be at least 1, got {value}")


def _ids(ids: Any, subject: str) -> Any:
    array = np.atleast_1d(np.asarray(ids))
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{subject}: expected a list of ids, got {ids!r}")
    return np.ascontiguousarray(array, np.int64)
