"""The compiled engine. Arrays are float32 or float64, all of one call of the same dtype."""

import os
from collections.abc import Sequence
from typing import Any, Generic, TypedDict, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Result = TypeVar("Result")

version: str

class Gradients(TypedDict):
    inputs: Array | None
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None
    initial_state: list[Array]

class DenseGradients(TypedDict):
    inputs: Array | None
    kernel: Array
    bias: Array | None

class Recurrent:
    cell: str
    features: int
    units: int
    dtype: np.dtype[Any]
    def __init__(
        self,
        cell: str,
        kernel: Array,
        recurrent_kernel: Array,
        bias: Array | None = None,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
    ) -> None: ...
    def forward(
        self,
        x: Array,
        initial_state: Sequence[Array] | None = None,
        mask: Array | None = None,
        return_sequences: bool = True,
        go_backwards: bool = False,
        zero_output_for_mask: bool = False,
        input_dropout: Array | None = None,
        recurrent_dropout: Array | None = None,
    ) -> tuple[Array, list[Array]]: ...
    def forward_training(
        self,
        x: Array,
        initial_state: Sequence[Array] | None = None,
        mask: Array | None = None,
        return_sequences: bool = True,
        go_backwards: bool = False,
        zero_output_for_mask: bool = False,
        input_dropout: Array | None = None,
        recurrent_dropout: Array | None = None,
    ) -> tuple[Array, list[Array], Context]: ...
    # The same calls made ready for run_both.
    def prepare_forward(
        self,
        x: Array,
        initial_state: Sequence[Array] | None = None,
        mask: Array | None = None,
        return_sequences: bool = True,
        go_backwards: bool = False,
        zero_output_for_mask: bool = False,
        input_dropout: Array | None = None,
        recurrent_dropout: Array | None = None,
    ) -> Call[tuple[Array, list[Array]]]: ...
    def prepare_forward_training(
        self,
        x: Array,
        initial_state: Sequence[Array] | None = None,
        mask: Array | None = None,
        return_sequences: bool = True,
        go_backwards: bool = False,
        zero_output_for_mask: bool = False,
        input_dropout: Array | None = None,
        recurrent_dropout: Array | None = None,
    ) -> Call[tuple[Array, list[Array], Context]]: ...

class Context:
    def backward(
        self,
        d_outputs: Array | None = None,
        d_states: Sequence[Array | None] | None = None,
        inputs: bool = True,
    ) -> Gradients: ...
    def prepare_backward(
        self,
        d_outputs: Array | None = None,
        d_states: Sequence[Array | None] | None = None,
        inputs: bool = True,
    ) -> Call[Gradients]: ...

class Call(Generic[Result]): ...

def run_both(one: Call[Result], other: Call[Result]) -> tuple[Result, Result]: ...

class Dense:
    def __init__(self, kernel: Array, bias: Array | None = None) -> None: ...
    def forward(self, x: Array) -> Array: ...

def dense_backward(
    x: Array, kernel: Array, d_outputs: Array, inputs: bool = True, bias: bool = True
) -> DenseGradients: ...
def activation(name: str, x: Array) -> Array: ...
def softmax(x: Array) -> Array: ...
def log_softmax(x: Array) -> Array: ...
def activation_backward(name: str, x: Array, d_outputs: Array) -> Array: ...
def update_rules() -> dict[str, dict[str, int]]: ...

class Updater:
    def __init__(
        self,
        rule: str,
        weights: Sequence[Array],
        slots: Sequence[Sequence[Array]],
        decays: Sequence[bool],
    ) -> None: ...
    def step(
        self,
        gradients: Sequence[Array | None],
        coefficients: Sequence[float],
        decay: float = 0.0,
        decay_rate: float = 0.0,
    ) -> None: ...

class Model:
    def __init__(self, source: bytes | str | os.PathLike[str]) -> None: ...
    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def returns_sequences(self) -> bool: ...
    def predict(self, x: Array) -> Array: ...

class Stream:
    @overload
    def __init__(self, model: Model, batch: int) -> None: ...
    @overload
    def __init__(self, other: Stream) -> None: ...
    def step(self, x: Any, out: Array | None = None) -> Array: ...
    def reset(self, rows: Any = None) -> None: ...
    state: list[list[Array]]
    @property
    def batch_size(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

class StreamPool:
    def __init__(self, model: Model, capacity: int) -> None: ...
    def open(self) -> int: ...
    def step(self, ids: Any, x: Any, out: Array | None = None) -> Array: ...
    def reset(self, ids: Any) -> None: ...
    def close(self, id: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def capacity(self) -> int: ...

def cells() -> dict[str, dict[str, int]]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def config() -> dict[str, Any]: ...
def _set_parallel_threshold(flops: float) -> None: ...  # for tests

# What this machine can do at most, for `tidegate bench`: float32 operations done, bytes read.
def probe_multiply_add(iterations: int) -> int: ...
def probe_read(x: Array, repeats: int) -> int: ...
