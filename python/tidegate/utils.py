"""Small things that several modules share: seeds, names, registries, the progress bar."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["Progbar", "clear_session", "set_random_seed", "to_categorical"]

Array = np.ndarray[Any, np.dtype[Any]]

# Keras's `keras.config.epsilon()`: what keeps logarithms, roots and quotients finite.
EPSILON = 1e-7


# ---- Random numbers ------------------------------------------------------------------------------

_shared_generator: np.random.Generator | None = None


def set_random_seed(seed: int) -> None:
    """Seeds Python's `random`, NumPy's legacy state and every random choice of this package.

    Weights, dropout and shuffling all derive from here, so the same program repeats bit for bit,
    whatever the number of threads.

    Args:
        seed: From 0 to 2**32 - 1.

    Raises:
        ValueError: `seed` is no such integer.
    """
    global _shared_generator
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected an integer from 0 to 2**32 - 1, got {seed!r}")
    number = int(seed)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 (users' own legacy calls should repeat, too)
    _shared_generator = np.random.default_rng(number)


def shared_generator() -> np.random.Generator:
    """The generator that `set_random_seed` seeds; seeded by the system until then."""
    global _shared_generator
    if _shared_generator is None:
        _shared_generator = np.random.default_rng()
    return _shared_generator


def draw_seed() -> int:
    """A fresh seed from the shared generator, for an object that was given none."""
    return int(shared_generator().integers(2**63))


def make_generator(seed: int | None = None) -> np.random.Generator:
    """A generator of its own for an object, seeded by `seed` or, if None, by the shared one."""
    # Any integer is a legal seed in Keras; NumPy wants it non-negative.
    return np.random.default_rng((draw_seed() if seed is None else int(seed)) % 2**64)


# ---- Names ---------------------------------------------------------------------------------------

_name_counts: defaultdict[str, int] = defaultdict(int)


def to_snake_case(name: str) -> str:
    """`"DualStateGRU"` -> `"dual_state_gru"`, `"LSTM"` -> `"lstm"`, by Keras's rules."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def unique_name(prefix: str) -> str:
    """`prefix` in snake case, with `_1`, `_2` ... appended from its second use on."""
    name = to_snake_case(prefix)
    count = _name_counts[name]
    _name_counts[name] += 1
    return name if count == 0 else f"{name}_{count}"


def clear_session() -> None:
    """Makes automatic names start anew (`lstm`, `lstm_1`, ...)."""
    _name_counts.clear()


# ---- Names <-> objects ---------------------------------------------------------------------------


class Registry:
    """The built-in objects of one kind, found by name and written as Keras writes them.

    Args:
        module: Where Keras has them, for example `"keras.losses"`.
        kind: What messages call one of them, for example `"loss"`.
        objects: Classes and functions. Each is known by its `__name__` and that in snake case.
        aliases: Further names.
        lowercase: Whether names are matched without regard to case.
    """

    def __init__(
        self,
        module: str,
        kind: str,
        objects: Iterable[Any],
        aliases: Mapping[str, Any] | None = None,
        lowercase: bool = False,
    ) -> None:
        self.module = module
        self.kind = kind
        self._lowercase = lowercase
        self._objects: dict[str, Any] = {}
        self._builtin = set(objects)
        for item in self._builtin:
            # Classes last: where a function has the name of a class, it keeps it.
            self._objects[self._key(item.__name__)] = item
        for item in self._builtin:
            self._objects.setdefault(self._key(to_snake_case(item.__name__)), item)
        for name, item in (aliases or {}).items():
            self._objects[self._key(name)] = item

    def _key(self, name: str) -> str:
        return name.lower() if self._lowercase else name

    def find(self, name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The class or function called `name`. Raises ValueError if there is none."""
        if custom_objects and name in custom_objects:
            return custom_objects[name]
        try:
            return self._objects[self._key(name)]
        except KeyError:
            raise ValueError(f"Could not interpret {self.kind} identifier: {name}") from None

    def serialize(self, item: Any) -> dict[str, Any]:
        """`item` as the dict that Keras's files hold."""
        if not hasattr(item, "get_config"):
            name = getattr(item, "__name__", None)
            if name is None:
                raise TypeError(f"{self.kind}: expected a function or a get_config(), got {item!r}")
            return {
                "module": "builtins",
                "class_name": "function",
                "config": name,
                "registered_name": "function",
            }
        cls = type(item)
        builtin = cls in self._builtin
        return {
            "module": self.module if builtin else cls.__module__,
            "class_name": cls.__name__,
            "config": item.get_config(),
            "registered_name": None if builtin else cls.__name__,
        }

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The object that `config`, a name or a dict from `serialize`, describes.

        Nothing is imported by the module name in `config`: a class that is not built in has to be
        in `custom_objects`.

        Raises:
            ValueError: `config` is malformed or names something unknown.
        """
        if isinstance(config, str):
            found = self.find(config, custom_objects)
            return found() if isinstance(found, type) else found
        if not isinstance(config, Mapping) or "class_name" not in config:
            raise ValueError(f"Could not interpret {self.kind} identifier: {config}")
        inner = config.get("config")
        if config["class_name"] == "function":
            return self.find(str(inner), custom_objects)
        found = self.find(str(config["class_name"]), custom_objects)
        if not isinstance(found, type):
            return found
        inner = dict(inner or {})
        try:
            if hasattr(found, "from_config"):
                return found.from_config(inner)
            return found(**inner)
        except TypeError as error:
            raise ValueError(f"{self.kind} {config['class_name']}: {error}") from error

    def get(self, identifier: Any) -> Any:
        """The object for a name, a dict, a class (which is called) or the object itself.

        Raises:
            ValueError: It is none of these.
        """
        if isinstance(identifier, str | Mapping):
            return self.deserialize(identifier)
        if isinstance(identifier, type):
            return identifier()
        if identifier is None or callable(identifier):
            return identifier
        raise ValueError(f"Could not interpret {self.kind} identifier: {identifier}")


# ---- Data ----------------------------------------------------------------------------------------


def to_categorical(x: Any, num_classes: int | None = None) -> Array:
    """Class numbers as one-hot rows.

    Args:
        x: Integers from 0 to `num_classes - 1`, any shape. A last axis of length 1 is dropped.
        num_classes: Defaults to the largest number plus 1.

    Returns:
        float64 array of shape `x.shape + (num_classes,)`.

    Raises:
        ValueError: A number is out of range, or `x` is empty and `num_classes` not given.
    """
    labels = np.asarray(x).astype("int64")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if not num_classes:
        if labels.size == 0:
            raise ValueError("num_classes: expected a number for an empty x, got None")
        num_classes = int(labels.max()) + 1
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"x: expected class numbers from 0 to {num_classes - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    one_hot = np.zeros((*labels.shape, num_classes))
    np.put_along_axis(one_hot, labels[..., None], 1.0, -1)
    return one_hot


# ---- Messages and the progress bar ---------------------------------------------------------------


def print_message(message: str, end: str = "\n") -> None:
    """Prints to stdout at once; what its encoding lacks is replaced, so that it cannot fail."""
    stream = sys.stdout
    if stream is None:  # a program without a console
        return
    text = message + end
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("━", "=").encode(encoding, "replace").decode(encoding)
    stream.write(text)
    stream.flush()


def is_interactive() -> bool:
    """Whether stdout can redraw a line: a terminal, a notebook or PyCharm's console."""
    isatty = getattr(sys.stdout, "isatty", None)
    return bool(
        (isatty is not None and isatty())
        or "ipykernel" in sys.modules
        or "PYCHARM_HOSTED" in os.environ
    )


def resolve_verbose(verbose: int | str | bool) -> int:
    """`"auto"` -> 1 (a bar) where a line can be redrawn, else 2 (a line per epoch)."""
    if verbose == "auto":
        return 1 if is_interactive() else 2
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    return int(verbose)


class Progbar:
    """A progress bar with the look of Keras's.

    Mode 1 redraws one line, at most every `interval` seconds (without a terminal it writes that
    line once, at the end, and without colours); mode 2 writes one line at the end; mode 0 nothing.

    Args:
        target: Number of steps, or None if unknown.
        verbose: 0, 1 or 2.
        width: Characters of the bar.
        interval: Least time between redraws, in seconds.
        unit_name: What a step is called.
    """

    def __init__(
        self,
        target: int | None,
        verbose: int = 1,
        width: int = 20,
        interval: float = 0.05,
        unit_name: str = "step",
    ) -> None:
        self.target = target
        self.verbose = verbose
        self.width = width
        self.interval = interval
        self.unit_name = unit_name
        self._interactive = is_interactive()
        self._values: dict[str, Any] = {}
        self._start = time.perf_counter()
        self._last_update = -math.inf
        self._time_after_first_step: float | None = None
        self._shown = 0  # columns of the line on the screen

    def update(
        self, current: int, values: Mapping[str, Any] | None = None, finalize: bool = False
    ) -> None:
        """Shows that `current` steps are done, with `values` as they are.

        Args:
            current: Steps done so far.
            values: Numbers to show by name.
            finalize: Whether this is the last call: draws in any case, and ends the line.
        """
        if self.verbose == 0:
            return
        self._values.update(values or {})
        now = time.perf_counter()
        time_per_step = self._time_per_step(current, now)
        if not finalize and (
            self.verbose == 2 or not self._interactive or now - self._last_update < self.interval
        ):
            return
        self._last_update = now
        if self.verbose == 2:
            if self.target:
                # As Keras: here, unlike in the bar, any negative number is "small".
                count = f"{current:{len(str(self.target))}d}/{self.target}"
                timing = f" - {now - self._start:.0f}s -{self._format_step(time_per_step)}"
                print_message(count + timing + self._format_values(float))
            return
        remaining = None
        if self.target and not finalize:
            remaining = time_per_step * (self.target - current)
        self._draw(current, time_per_step, now - self._start, remaining, finalize)

    def _draw(
        self, current: int, per_step: float, elapsed: float, remaining: float | None, last: bool
    ) -> None:
        clock = f"{elapsed:.0f}s" if remaining is None else _format_duration(remaining)
        tail = self._format_step(per_step) + self._format_values(abs)
        if not self.target:
            plain = styled = f"{current:7d}/Unknown "
        else:
            count = f"{current:{len(str(self.target))}d}/{self.target}"
            done = min(self.width, int(self.width * current / self.target))
            plain = f"{count} {'━' * self.width} "
            green = f"\x1b[32m{'━' * done}\x1b[0m" if done else ""
            styled = f"\x1b[1m{count}\x1b[0m {green}\x1b[37m{'━' * (self.width - done)}\x1b[0m "
        columns = len(plain) + len(clock) + len(tail)
        if not self._interactive:
            print_message(plain + clock + tail)
            return
        # A line that wraps could not be redrawn, so while running it is cut to what fits.
        room = shutil.get_terminal_size().columns - 1
        if not last and columns > room:
            tail = tail[: max(0, len(tail) - (columns - room))]
            columns = len(plain) + len(clock) + len(tail)
        padding = " " * max(0, self._shown - columns)
        line = f"\r{styled}\x1b[1m{clock}\x1b[0m{tail}{padding}"
        print_message(line, "\n" if last else "")
        self._shown = columns

    def _time_per_step(self, current: int, now: float) -> float:
        """The mean, without the first step, which is seldom like the others."""
        if not current:
            return 0.0
        if self._time_after_first_step is not None and current > 1:
            per_step = (now - self._time_after_first_step) / (current - 1)
        else:
            per_step = (now - self._start) / current
        if current == 1:
            self._time_after_first_step = now
        return per_step

    def _format_step(self, seconds: float) -> str:
        if seconds >= 1 or seconds == 0:
            return f" {seconds:.0f}s/{self.unit_name}"
        if seconds >= 1e-3:
            return f" {seconds * 1e3:.0f}ms/{self.unit_name}"
        return f" {seconds * 1e6:.0f}us/{self.unit_name}"

    def _format_values(self, magnitude: Callable[[float], float]) -> str:
        parts = []
        for name, value in self._values.items():
            number = float(np.mean(value))
            text = f"{number:.4f}" if magnitude(number) > 1e-3 else f"{number:.4e}"
            parts.append(f" - {name}: {text}")
        return "".join(parts)


def _format_duration(seconds: float) -> str:
    whole = int(seconds)
    if whole > 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    if whole > 60:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole}s"
