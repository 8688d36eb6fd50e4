"""The frameworks tidegate is compared with, one file each, all with the same three functions.

A contestant module has

- `NAME`, what the tables call it, or a dict of names for a framework that comes in variants: what
  follows the hyphen in its command-line name;
- `environment(threads, variant)`: environment variables that must be set before its import;
- `version()`: imports it and returns its version (ImportError if it is not installed);
- `prepare(problem, arrays)`: returns `(call, to_numpy)`. `call()` does the task once and returns
  when it is done; `to_numpy(result)` turns that into `outputs` (batch, time, units) and,
  for the task `training`, the gradients `inputs`, `kernel`, `recurrent_kernel`, `bias` in Keras's
  layout. Of the task `step` the second call is compared: contestants carry their state along or
  begin every call with the state after the first step. Of the task `fit` the result is the `loss`
  of the second epoch. It raises `Unsupported` when the framework does not have the cell or the
  task.

Everyone gets the data in the layout it likes best, prepared outside the timed call; what the call
returns is the framework's own array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problems import Arrays

Prepared = tuple[Callable[[], Any], Callable[[Any], Arrays]]

# Command-line name -> module. The first is the judge of all the others.
CONTESTANTS = {
    "tidegate": "tidegate.bench.rivals.own",
    "torch": "tidegate.bench.rivals.torch",
    "onnxruntime": "tidegate.bench.rivals.onnxruntime",
    "openvino": "tidegate.bench.rivals.openvino",
    "jax": "tidegate.bench.rivals.jax",
    "keras-jax": "tidegate.bench.rivals.keras",
    "keras-tensorflow": "tidegate.bench.rivals.keras",
    "keras-torch": "tidegate.bench.rivals.keras",
}


class Unsupported(Exception):
    """The framework does not offer this cell or this task."""
