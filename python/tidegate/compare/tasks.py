"""The data that networks are compared on, and the obvious answers that they have to beat.

Synthetic tasks take the length of the memory they need as a parameter; real data come from
packages or from Python itself, never from the network. Everything is split into training,
validation and test data: weights are chosen by validation error, reported is the test error.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

CONTEXT = 40  # characters that the language task looks back
VOWEL_FRAMES, VOWEL_CHANNELS, SPEAKERS = 29, 12, 9


class Unavailable(Exception):
    """The data of a task are not on this machine; the message says where they come from."""


@dataclass(frozen=True)
class Data:
    """Inputs (samples, time, features), or (samples, time) of symbol numbers, and targets."""

    x: dict[str, Array]  # by part: "train", "validation", "test"
    y: dict[str, Array]
    baselines: dict[str, float]  # test error of each obvious answer
    source: str
    scale: float = 1.0  # of the targets: what 1 means in the unit of the metric


@dataclass(frozen=True)
class Task:
    """A problem and how long everybody is trained on it."""

    name: str
    title: str
    metric: str
    load: Callable[[int], Data] = field(compare=False)
    kind: str  # "sum" (mean square), "forecast" (its root), "classes" (%), "symbols" (bits)
    outputs: int
    time: int
    units: int  # of the LSTM that sets the parameter budget, and of all where units are equal
    epochs: int
    batch_size: int
    learning_rate: float
    window: int  # what the feed-forward network sees: the last so many steps, at most `time`
    lag: int | None = None  # the memory it needs, where that is a parameter
    patience: int | None = None  # epochs without progress after which training ends
    solved: float | None = None  # error at which training ends
    masked: bool = False  # sequences are padded with zeros, which the networks skip
    features: int = 1
    symbols: int | None = None  # inputs are numbers below this

    @property
    def family(self) -> str:
        """The task without its lag."""
        return self.name.rpartition("-")[0] if self.lag else self.name


# ---- Synthetic: the memory needed is a parameter -------------------------------------------------


def adding(samples: dict[str, int], lag: int, seed: int) -> Data:
    """Two of `lag` numbers are marked, one in each half: their sum (Hochreiter, Schmidhuber 1997).

    Errors are mean squares; always saying 1 gives 1/6.
    """
    generator = np.random.default_rng([seed, lag, 1])
    x, y = {}, {}
    for part, count in samples.items():
        rows = np.arange(count)
        values = generator.random((count, lag), dtype=np.float32)
        marks = np.zeros((count, lag), np.float32)
        first = generator.integers(0, lag // 2, count)
        second = generator.integers(lag // 2, lag, count)
        marks[rows, first] = marks[rows, second] = 1
        x[part] = np.stack([values, marks], axis=-1)
        y[part] = (values[rows, first] + values[rows, second])[:, None]
    mean = float(np.mean((y["test"] - y["train"].mean()) ** 2))
    return Data(x, y, {"mean": mean}, "made from the seed")


def recall(samples: dict[str, int], lag: int, seed: int, symbols: int = 4) -> Data:
    """The first symbol, marked, is asked for after `lag` others that distract.

    Inputs are one-hot symbols and the mark; errors are percentages of wrong answers.
    """
    generator = np.random.default_rng([seed, lag, 2])
    x, y = {}, {}
    for part, count in samples.items():
        numbers = generator.integers(0, symbols, (count, lag + 1))
        one_hot = np.eye(symbols + 1, dtype=np.float32)[numbers]
        one_hot[:, 0, symbols] = 1
        x[part] = one_hot
        y[part] = numbers[:, 0]
    return Data(x, y, {"guess": _majority_error(y)}, "made from the seed")


def _majority_error(y: dict[str, Array]) -> float:
    """Percentage of wrong answers when always saying what is most frequent in training."""
    return 100 * float(np.mean(y["test"] != np.bincount(y["train"]).argmax()))


# ---- Real series ---------------------------------------------------------------------------------


def _statsmodels(name: str) -> Any:
    try:
        dataset: Any = importlib.import_module(f"statsmodels.datasets.{name}")
    except ImportError as error:
        raise Unavailable("statsmodels is not installed: pip install statsmodels") from error
    return dataset.load_pandas().data


def _windows(
    series: Array, window: int, horizon: int, relative: bool
) -> tuple[Array, Array, Array, Array]:
    """Windows (samples, window, 1), what follows each after `horizon` steps, offsets, positions.

    With `relative` both are differences from the last value of the window, the offset.
    """
    windows = np.lib.stride_tricks.sliding_window_view(series[:-horizon], window)
    positions = np.arange(window - 1 + horizon, len(series))
    targets = series[positions]
    offsets = windows[:, -1] if relative else np.zeros(len(windows))
    return (windows - offsets[:, None])[..., None], targets - offsets, offsets, positions


def _forecast(
    series: Array,
    window: int,
    horizon: int,
    relative: bool,
    seasonal: Callable[[Array], Array],
    seasonal_name: str,
    source: str,
) -> Data:
    """The first 60 % of the targets to train, then 20 % to validate, the last 20 % to test."""
    x, y, _, positions = _windows(series, window, horizon, relative)
    first, second = int(0.6 * len(y)), int(0.8 * len(y))
    parts = {
        "train": slice(0, first),
        "validation": slice(first, second),
        "test": slice(second, None),
    }
    baselines = {
        "persistence": series[positions - horizon],
        seasonal_name: seasonal(positions),
    }
    test = positions[parts["test"]]
    errors = {
        name: float(np.sqrt(np.mean((forecast[parts["test"]] - series[test]) ** 2)))
        for name, forecast in baselines.items()
    }
    centre = x[parts["train"]].mean()
    spread = x[parts["train"]].std()
    return Data(
        {name: ((x[part] - centre) / spread).astype(np.float32) for name, part in parts.items()},
        {
            name: ((y[part] - centre) / spread).astype(np.float32)[:, None]
            for name, part in parts.items()
        },
        errors,
        source,
        scale=float(spread),
    )


@cache
def sunspots() -> Data:
    """The next year's sunspot number out of the last 24 (two cycles of about 11 years)."""
    series = np.asarray(_statsmodels("sunspots")["SUNACTIVITY"], np.float64)
    return _forecast(
        series,
        window=24,
        horizon=1,
        relative=False,
        seasonal=lambda positions: series[positions - 11],
        seasonal_name="11 years before",
        source="statsmodels: yearly sunspot numbers 1700-2008",
    )


@cache
def co2() -> Data:
    """CO2 at Mauna Loa 13 weeks ahead, out of the last 60."""
    series = _statsmodels("co2")["co2"].interpolate().to_numpy(np.float64)
    return _forecast(
        series,
        window=60,
        horizon=13,
        relative=True,
        # What the same 13 weeks brought a year ago, on top of the latest value.
        seasonal=lambda p: series[p - 13] + series[p - 52] - series[p - 65],
        seasonal_name="last year's change",
        source="statsmodels: weekly CO2 at Mauna Loa 1958-2001, gaps interpolated",
    )


# ---- Real classes --------------------------------------------------------------------------------


@cache
def digits() -> Data:
    """Images of 8 by 8 pixels, read row by row."""
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise Unavailable("scikit-learn is not installed: pip install scikit-learn") from error
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8)
    y = labels[order].astype(np.int64)
    first, second = int(0.6 * len(y)), int(0.8 * len(y))
    return _three_parts(x, y, first, second, "scikit-learn: optical recognition of digits (UCI)")


def _three_parts(x: Array, y: Array, first: int, second: int, source: str) -> Data:
    cuts = {"train": slice(0, first), "validation": slice(first, second)}
    cuts["test"] = slice(second, None)
    targets = {name: y[part] for name, part in cuts.items()}
    return Data(
        {name: x[part] for name, part in cuts.items()},
        targets,
        {"most frequent": _majority_error(targets)},
        source,
    )


def read_ts(path: Path) -> tuple[list[Array], Array]:
    """Sequences (time, channels) of any length and class numbers, from a .ts file.

    After `@data` a line is a sample: channels separated by colons, values by commas, the class
    last.

    Raises:
        ValueError: A line is malformed.
    """
    text = path.read_text(encoding="utf-8")
    _, found, body = text.partition("@data")
    if not found:
        raise ValueError(f"{path.name}: expected a line @data, got none")
    sequences, labels = [], []
    for number, line in enumerate(filter(None, map(str.strip, body.splitlines())), 1):
        *channels, label = line.split(":")
        try:
            sequences.append(np.array([c.split(",") for c in channels], np.float32).T)
        except ValueError:
            raise ValueError(
                f"{path.name}, sample {number}: expected channels of equal length"
            ) from None
        labels.append(label)
    return sequences, np.unique(labels, return_inverse=True)[1].astype(np.int64)


def pad(sequences: list[Array], time: int) -> Array:
    """(samples, time, channels) float32 with zeros after the end of each sequence."""
    padded = np.zeros((len(sequences), time, sequences[0].shape[1]), np.float32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence[:time]
    return padded


@cache
def vowels() -> Data:
    """Who of nine men says a Japanese vowel: 7 to 29 frames of 12 coefficients each."""
    # The files are read where they are: importing aeon itself takes long and needs much more.
    spec = importlib.util.find_spec("aeon")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    folder = folder / "datasets" / "data" / "JapaneseVowels"
    if not (folder / "JapaneseVowels_TRAIN.ts").exists():
        raise Unavailable(
            "JapaneseVowels comes with the package aeon, which is not installed: "
            "pip install --no-deps aeon"
        )
    train, train_labels = read_ts(folder / "JapaneseVowels_TRAIN.ts")
    test, test_labels = read_ts(folder / "JapaneseVowels_TEST.ts")
    order = np.random.default_rng(0).permutation(len(train))
    train, train_labels = [train[i] for i in order], train_labels[order]
    return _three_parts(
        pad(train + test, VOWEL_FRAMES),
        np.concatenate([train_labels, test_labels]),
        int(0.75 * len(train)),
        len(train),
        "aeon: JapaneseVowels (UCI)",
    )


# ---- Language ------------------------------------------------------------------------------------


# What the text is made of, in order of symbol numbers; everything else is the last of them.
_ALPHABET = " abcdefghijklmnopqrstuvwxyz0123456789.,:;'\"`()[]{}<>=*+-/_|\\@#%&!?^~$\x00"


@cache
def _text() -> Array:
    """Python's own reference documentation as symbol numbers."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise Unavailable("this Python comes without pydoc_data, its documentation") from error
    text = re.sub(r"\s+", " ", " ".join(topics[name] for name in sorted(topics))).lower()
    number_of = np.full(128, len(_ALPHABET) - 1, np.int32)
    number_of[[ord(character) for character in _ALPHABET]] = np.arange(len(_ALPHABET))
    return number_of[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]


def language(samples: dict[str, int]) -> Data:
    """The next character out of the last `CONTEXT` ones, in bits per character."""
    numbers, symbols = _text(), len(_ALPHABET)
    generator = np.random.default_rng(0)
    bounds = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
    x, y = {}, {}
    for part, count in samples.items():
        begin, end = (int(share * len(numbers)) for share in bounds[part])
        starts = generator.integers(begin, end - CONTEXT - 1, count)
        x[part] = numbers[starts[:, None] + np.arange(CONTEXT)]
        y[part] = numbers[starts + CONTEXT].astype(np.int64)
    text = numbers[: int(bounds["train"][1] * len(numbers))]
    single = np.bincount(text, minlength=symbols) + 1.0
    pairs = np.ones((symbols, symbols))
    np.add.at(pairs, (text[:-1], text[1:]), 1)
    pairs /= pairs.sum(axis=1, keepdims=True)
    baselines = {
        "frequencies": -float(np.mean(np.log2((single / single.sum())[y["test"]]))),
        "pairs": -float(np.mean(np.log2(pairs[x["test"][:, -1], y["test"]]))),
    }
    return Data(x, y, baselines, f"Python: pydoc_data.topics, {len(numbers):,} characters")


# ---- Which tasks, and how long -------------------------------------------------------------------

FAMILIES = ("adding", "recall", "sunspots", "co2", "digits", "language", "vowels")
QUICK_FAMILIES = ("adding", "recall", "sunspots", "digits")
_WINDOW = 16


def _memory_tasks(full: bool) -> list[Task]:
    samples = dict(train=5000 if full else 3000, validation=1000, test=1000)
    common: dict[str, Any] = dict(
        units=32 if full else 24,
        epochs=30 if full else 16,
        batch_size=50,
        learning_rate=0.01,
    )
    tasks = []
    for lag in (20, 50, 100, 200) if full else (20, 50):
        tasks.append(
            Task(
                name=f"adding-{lag}",
                title=f"adding problem, {lag} steps",
                metric="mean squared error",
                load=partial(adding, samples, lag),
                kind="sum",
                outputs=1,
                features=2,
                time=lag,
                window=min(_WINDOW, lag),
                lag=lag,
                solved=0.001,
                **common,
            )
        )
    for lag in (10, 30, 100, 200) if full else (10, 40):
        tasks.append(
            Task(
                name=f"recall-{lag}",
                title=f"recall after {lag} steps",
                metric="wrong answers, %",
                load=partial(recall, samples, lag),
                kind="classes",
                outputs=4,
                features=5,
                time=lag + 1,
                window=min(_WINDOW, lag + 1),
                lag=lag,
                solved=0.5,
                **common,
            )
        )
    return tasks


def _real_tasks(full: bool) -> list[Task]:
    return [
        Task(
            name="sunspots",
            title="sunspots, next year",
            metric="RMSE, sunspot number",
            load=lambda seed: sunspots(),
            kind="forecast",
            outputs=1,
            time=24,
            units=16,
            epochs=200 if full else 80,
            patience=30 if full else 15,
            batch_size=16,
            learning_rate=0.003,
            window=24,
        ),
        Task(
            name="co2",
            title="CO2, 13 weeks ahead",
            metric="RMSE, ppm",
            load=lambda seed: co2(),
            kind="forecast",
            outputs=1,
            time=60,
            units=24,
            epochs=60,
            patience=12,
            batch_size=32,
            learning_rate=0.003,
            window=60,
        ),
        Task(
            name="digits",
            title="digits, row by row",
            metric="wrong answers, %",
            load=lambda seed: digits(),
            kind="classes",
            outputs=10,
            features=8,
            time=8,
            units=32,
            epochs=60 if full else 20,
            patience=12,
            batch_size=32,
            learning_rate=0.005,
            window=8,
        ),
        Task(
            name="language",
            title=f"next character after {CONTEXT}",
            metric="bits per character",
            load=lambda seed: language(dict(train=20000, validation=4000, test=4000)),
            kind="symbols",
            outputs=len(_ALPHABET),
            symbols=len(_ALPHABET),
            time=CONTEXT,
            units=64,
            epochs=8,
            batch_size=64,
            learning_rate=0.003,
            window=_WINDOW,
        ),
        Task(
            name="vowels",
            title="speaker of a Japanese vowel",
            metric="wrong answers, %",
            load=lambda seed: vowels(),
            kind="classes",
            outputs=SPEAKERS,
            features=VOWEL_CHANNELS,
            time=VOWEL_FRAMES,
            units=24,
            epochs=80,
            patience=20,
            batch_size=16,
            learning_rate=0.003,
            window=VOWEL_FRAMES,
            masked=True,
        ),
    ]


def tasks(full: bool, families: tuple[str, ...] | None = None) -> list[Task]:
    """The tasks of the quick or the full study; with `families` those, also in the quick one."""
    wanted = families or (FAMILIES if full else QUICK_FAMILIES)
    found = _memory_tasks(full) + _real_tasks(full)
    return [task for task in found if task.family in wanted]
