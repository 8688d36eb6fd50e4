"""Model files: Keras's own, its legacy ones, and one for deployment.

================ ====== ===== ===========================================================
extension        write  read  what it holds
================ ====== ===== ===========================================================
`.keras`         yes    yes   model, weights and optimizer, as Keras 3 writes it
`.weights.h5`    yes    yes   weights and optimizer, as Keras 3 writes it
`.safetensors`   yes    yes   model and weights for inference, here and in C++
`.h5` `.hdf5`    no     yes   legacy models and weights, of Keras 2 and 3
================ ====== ===== ===========================================================

Loading executes nothing from a file and takes no more memory than the file's size warrants;
writing replaces an old file only when the new one is complete. `h5py` and `safetensors` are
imported when a file needs them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .legacy_h5 import convert_h5_weights, read_h5_weights
    from .torch import weights_from_torch, weights_to_torch

__all__ = [
    "convert_h5_weights",
    "info",
    "load_model",
    "load_weights",
    "read_h5_weights",
    "save_model",
    "save_weights",
    "weights_from_torch",
    "weights_to_torch",
]

Path = str | os.PathLike[str]
_LEGACY = (".h5", ".hdf5")
# What a configuration can raise, somewhere below, whose values are of unexpected types.
_MALFORMED = (
    AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError
)  # fmt: skip
# Public functions that live in modules which are imported when first used.
_LAZY = {
    "convert_h5_weights": "legacy_h5",
    "read_h5_weights": "legacy_h5",
    "weights_from_torch": "torch",
    "weights_to_torch": "torch",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def save_model(model: Any, filepath: Path, overwrite: bool = True) -> None:
    """Save a Sequential model as `.keras` or `.safetensors`, by the extension.

    The file appears whole or not at all; an old one stays if anything fails.

    Args:
        model: the model; for `.safetensors` it must be built.
        filepath: where to.
        overwrite: whether a file that is there may be replaced.

    Raises:
        ValueError: another extension, a file that is there with `overwrite=False`, or a model
            that the format cannot hold.
        OSError: the file cannot be written.
    """
    path = os.fspath(filepath)
    if path.endswith(".weights.h5"):
        raise ValueError(
            f"Invalid filepath extension for saving a whole model; `.weights.h5` holds weights "
            f"only, written by `model.save_weights`. Received: filepath={path}."
        )
    if path.endswith(_LEGACY):
        raise ValueError(
            "Invalid filepath extension for saving. Legacy `.h5` files are read but not written; "
            f"please use a `.keras` extension instead. Received: filepath={path}."
        )
    if not path.endswith((".keras", ".safetensors")):
        raise ValueError(
            "Invalid filepath extension for saving. Please add either a `.keras` extension for the "
            "native Keras format (recommended) or a `.safetensors` extension for deployment. "
            f"Received: filepath={path}."
        )
    _check_overwrite(path, overwrite)
    if path.endswith(".keras"):
        from . import keras

        keras.save_model(model, path)
    else:
        from . import safetensors

        safetensors.save(model, path)


def load_model(
    filepath: Path,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    model_class: type,
) -> Any:
    """Load a model from a `.keras`, `.safetensors` or legacy `.h5` file.

    Args:
        filepath: where from.
        custom_objects: names mapped to the classes and functions of the user's that the file
            refers to.
        compile: whether to compile the model as it was when saved, and to restore the
            optimizer's state.
        safe_mode: accepted as in Keras; lambdas are refused with either value, because
            nothing in a file is ever executed.
        model_class: `tidegate.Sequential`, which is above this package and therefore comes
            from the caller, `tidegate.load_model`.

    Returns:
        A Sequential model. A functional model is read if its layers form one chain.

    Raises:
        ValueError: another extension, a damaged file, or one with layers, arguments or objects
            that are not known here; they are named.
        OSError: the file cannot be opened.
    """
    path = _existing(filepath)
    try:
        if path.endswith(".keras"):
            from . import keras

            return keras.load_model(path, model_class, custom_objects, compile)
        if path.endswith(".safetensors"):
            from . import safetensors

            return safetensors.load(path, model_class)
        if path.endswith(_LEGACY):
            from . import legacy_h5

            return legacy_h5.load_model(path, model_class, custom_objects, compile)
    except _MALFORMED as error:
        raise ValueError(
            f"{path}: malformed configuration: {type(error).__name__}: {error}"
        ) from error
    raise ValueError(
        f"File format not supported: filepath={path}. Only `.keras` files, `.safetensors` files "
        "and legacy `.h5` files are supported."
    )


def save_weights(model: Any, filepath: Path, overwrite: bool = True) -> None:
    """Save a built model's weights, and its optimizer's state, as `.weights.h5`.

    Raises:
        ValueError: another extension, an unbuilt model, or a file that is there with
            `overwrite=False`.
        OSError: the file cannot be written.
    """
    path = os.fspath(filepath)
    if not path.endswith(".weights.h5"):
        raise ValueError(f"The filename must end in `.weights.h5`. Received: filepath={path}")
    if not model.built:
        raise ValueError(
            "You are saving a model that has not yet been built. Try building the model first by "
            "calling it on some data or by using `build()`."
        )
    _check_overwrite(path, overwrite)
    from . import keras

    keras.save_weights(model, path)


def load_weights(
    model: Any, filepath: Path, skip_mismatch: bool = False, by_name: bool = False
) -> None:
    """Load weights into a built model from a `.weights.h5`, `.keras` or legacy `.h5` file.

    Args:
        model: the model.
        filepath: where from.
        skip_mismatch: whether to skip layers that do not fit, with a warning, instead of raising.
        by_name: for legacy files: whether to match layers by name instead of by order.

    Raises:
        ValueError: another extension, a damaged file, or weights that do not fit; the model is
            unchanged then.
        OSError: the file cannot be opened.
    """
    from . import legacy_h5

    if not model.built:
        raise ValueError(
            "You are loading weights into a model that has not yet been built. Try building the "
            "model first by calling it on some data or by using `build()`."
        )
    path = _existing(filepath)
    # Before Keras 2.12 the name `.weights.h5` meant nothing: such files may be legacy ones.
    old = path.endswith(".weights.h5") and legacy_h5.is_legacy(path)
    if path.endswith((".weights.h5", ".keras")) and not old:
        if by_name:
            raise ValueError(
                f"`by_name` only supports loading legacy '.h5' or '.hdf5' files. Received: {path}"
            )
        from . import keras

        keras.load_weights(model, path, skip_mismatch)
    elif path.endswith(_LEGACY):
        legacy_h5.load_weights(model, path, by_name, skip_mismatch)
    else:
        raise ValueError(
            f"File format not supported: filepath={path}. Only `.weights.h5` files, `.keras` files "
            "and legacy `.h5` files are supported."
        )


def info(filepath: Path) -> dict[str, Any]:
    """Return what a model file holds, as plain data, without building the model.

    Returns:
        A dict with `format`, `bytes`, `shapes` (of every array by its path in the file),
        `parameters` (numbers in all weights) and, as far as the file has them, `keras_version`,
        `producer`, `model` and `layers` (class names and names).

    Raises:
        ValueError: another extension, or a damaged file.
        OSError: the file cannot be opened.
    """
    from . import inspection

    return inspection.describe_file(_existing(filepath))


def _check_overwrite(path: str, overwrite: bool) -> None:
    if not overwrite and os.path.exists(path):
        raise ValueError(f"filepath: expected a new file with overwrite=False, found {path}")


def _existing(filepath: Path) -> str:
    path = os.fspath(filepath)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"File not found: filepath={path}. Please ensure the file is an accessible file."
        )
    return path
