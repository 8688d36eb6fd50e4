"""Fast recurrent layers (LSTM, GRU and others) for CPUs, with Keras's semantics.

    from tidegate import Sequential, layers

    model = Sequential([layers.Input((10, 1)), layers.LSTM(50), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mean_squared_error")
    model.fit(x_train, y_train, epochs=100, batch_size=32)

What is seldom needed is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import (
    _core,
    callbacks,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    regularizers,
    utils,
)
from .config import get_cmake_dir, get_include, get_num_threads, set_num_threads, show_config
from .models import Sequential, load_model
from .utils import set_random_seed

if TYPE_CHECKING:
    from . import analysis
    from .streaming import StreamPool

__version__ = _core.version

__all__ = [
    "Sequential",
    "StreamPool",
    "__version__",
    "analysis",
    "callbacks",
    "constraints",
    "get_cmake_dir",
    "get_include",
    "get_num_threads",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "regularizers",
    "set_num_threads",
    "set_random_seed",
    "show_config",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name == "analysis":
        return importlib.import_module(".analysis", __name__)
    if name == "StreamPool":
        return importlib.import_module(".streaming", __name__).StreamPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
