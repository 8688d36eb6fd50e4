"""Threads, instruction set and where the C++ files are."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any

from . import _core

__all__ = ["get_cmake_dir", "get_include", "get_num_threads", "set_num_threads", "show_config"]


def set_num_threads(n: int | Integral) -> None:
    """Makes the engine use `n` threads from the next call on, also above the number of cores.

    Results are bit-identical for every `n`.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is less than 1.
    """
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise TypeError(f"set_num_threads: expected an integer, got {n!r}")
    if n < 1:
        raise ValueError(f"set_num_threads: expected at least 1 thread, got {n}")
    _core.set_num_threads(int(n))


def get_num_threads() -> int:
    """The number of threads the engine uses: what was set, `TIDEGATE_NUM_THREADS` or the default.

    The default is what the process's affinity and its cgroup's quota allow.
    """
    return int(_core.get_num_threads())


def show_config() -> dict[str, Any]:
    """Prints and returns version, instruction sets, threads and cells of this installation."""
    from . import __version__
    from .utils import print_message

    config = {"version": __version__, **_core.config(), "cells": sorted(_core.cells())}
    width = max(map(len, config))
    for name, value in config.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print_message(f"{name:{width}}  {text}")
    return config


def get_include() -> str:
    """The folder to put on a C++ compiler's include path for `<tidegate/tidegate.h>`."""
    return _installed("include")


def get_cmake_dir() -> str:
    """The folder that holds `tidegateConfig.cmake`, for `find_package(tidegate)`."""
    return _installed("lib/cmake/tidegate")


def _installed(folder: str) -> str:
    # Beside the compiled module, also where an editable install keeps it apart from the sources.
    root = Path(_core.__file__).resolve().parent
    path = root / folder
    if not path.is_dir():
        raise OSError(f"tidegate: expected the C++ files in {path}, found no such folder")
    return str(path)
