"""`tidegate compare`: its data, runs that repeat and go on, computed claims, and the report."""

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from tidegate.compare import claims, main, networks, tasks
from tidegate.compare.networks import CELLS, NETWORKS
from tidegate.compare.runs import Run, execute, find_task
from tidegate.compare.study import Entry, Plan, Store, Study, write_atomically
from tidegate.compare.tables import number

needs_statsmodels = pytest.mark.skipif(
    not importlib.util.find_spec("statsmodels"), reason="statsmodels is not installed"
)
needs_digits = pytest.mark.skipif(
    not importlib.util.find_spec("sklearn"), reason="scikit-learn is not installed"
)
SMALL = ("--task", "digits", "--cells", "simple_rnn,gru", "--seeds", "1")


# ---- Data ----------------------------------------------------------------------------------------


def test_adding_asks_for_the_sum_of_one_number_in_each_half():
    data = tasks.adding(dict(train=50, validation=1, test=400), 12, seed=3)
    x, y = data.x["train"], data.y["train"]
    assert x.shape == (50, 12, 2)
    marks = x[..., 1]
    np.testing.assert_array_equal(marks[:, :6].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, 6:].sum(axis=1), 1)
    np.testing.assert_allclose((x[..., 0] * marks).sum(axis=1, keepdims=True), y, rtol=1e-6)
    assert data.baselines["mean"] == pytest.approx(1 / 6, rel=0.2)


def test_recall_asks_for_the_first_symbol():
    data = tasks.recall(dict(train=200, validation=1, test=400), 7, seed=3)
    x, y = data.x["train"], data.y["train"]
    assert x.shape == (200, 8, 5)
    np.testing.assert_array_equal(x[:, 0, :4].argmax(axis=1), y)
    np.testing.assert_array_equal(x[:, :, 4], np.arange(8) == 0 * np.ones((200, 1)))
    assert data.baselines["guess"] == pytest.approx(75, abs=8)


@needs_statsmodels
@pytest.mark.parametrize("name, window, horizon", [("sunspots", 24, 1), ("co2", 60, 13)])
def test_forecasts_are_of_what_follows_and_tests_are_of_the_future(name, window, horizon):
    data = getattr(tasks, name)()
    train, test = data.x["train"], data.x["test"]
    assert train.shape[1:] == test.shape[1:] == (window, 1)
    # The target of a window is the last value of the window `horizon` samples later.
    later = train[horizon:, -1, 0] if name == "sunspots" else None
    if later is not None:
        np.testing.assert_allclose(data.y["train"][:-horizon, 0], later, rtol=1e-5)
    lengths = [len(data.y[part]) for part in ("train", "validation", "test")]
    assert lengths[0] == int(0.6 * sum(lengths))
    persistence = data.baselines["persistence"]
    if name == "sunspots":
        own = np.sqrt(np.mean((test[:, -1] - data.y["test"]) ** 2)) * data.scale
        assert own == pytest.approx(persistence, rel=1e-5)
    assert np.isfinite(list(data.baselines.values())).all()


def test_sequences_of_any_length_from_a_ts_file(tmp_path):
    path = tmp_path / "small.ts"
    path.write_text("@classLabel true a b\n@data\n1,2,3:4,5,6:b\n7:8:a\n")
    sequences, labels = tasks.read_ts(path)
    assert labels.tolist() == [1, 0]
    padded = tasks.pad(sequences, 4)
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(padded[0], [[1, 4], [2, 5], [3, 6], [0, 0]])
    np.testing.assert_array_equal(padded[1], [[7, 8], [0, 0], [0, 0], [0, 0]])
    path.write_text("@data\n1,2:3:a\n")
    with pytest.raises(ValueError, match=r"small\.ts, sample 1: expected channels of equal length"):
        tasks.read_ts(path)
    path.write_text("1,2:3:a\n")
    with pytest.raises(ValueError, match="expected a line @data"):
        tasks.read_ts(path)


@pytest.mark.skipif(not importlib.util.find_spec("aeon"), reason="aeon is not installed")
def test_japanese_vowels():
    tasks.vowels.cache_clear()
    data = tasks.vowels()
    assert [len(data.y[part]) for part in ("train", "validation", "test")] == [202, 68, 370]
    lengths = np.any(data.x["train"] != 0, axis=-1).sum(axis=1)
    assert lengths.min() >= 7
    assert lengths.max() <= 29
    assert set(data.y["test"]) == set(range(9))


def test_language_never_shows_what_it_tests():
    data = tasks.language(dict(train=500, validation=10, test=300))
    assert data.x["train"].shape == (500, tasks.CONTEXT)
    # Pairs know more than single characters, and both less than nothing at all.
    assert 2 < data.baselines["pairs"] < data.baselines["frequencies"] < np.log2(70)
    again = tasks.language(dict(train=500, validation=10, test=300))
    np.testing.assert_array_equal(data.x["test"], again.x["test"])


# ---- Networks and runs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", {task.family: task for task in tasks.tasks(full=True)}.values(), ids=lambda t: t.name
)
def test_equal_parameters_are_equal(task):
    budget = networks.sizes(NETWORKS["lstm"], task)
    assert budget == {"units": task.units, "parameters": task.units}
    wanted = networks.build(NETWORKS["lstm"], task, task.units).count_params()
    for name in CELLS:
        if networks.suits(NETWORKS[name], task):
            units = networks.sizes(NETWORKS[name], task)["parameters"]
            got = networks.build(NETWORKS[name], task, units).count_params()
            assert got == pytest.approx(wanted, rel=0.1), name


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_repeats_bit_for_bit(name, monkeypatch):
    few = partial(tasks.recall, dict(train=200, validation=50, test=64), 10)
    short = dataclasses.replace(find_task("recall-10", False), epochs=1, load=few)
    monkeypatch.setattr("tidegate.compare.runs.find_task", lambda *_: short)
    run = Run("recall-10", name, 8, seed=5)
    first, second = execute(run), execute(run)
    assert first.pop("seconds_per_epoch") > 0
    second.pop("seconds_per_epoch")
    assert json.dumps(first) == json.dumps(second)
    assert len(first["curve"]) == 1
    assert ("start" in first["flow"]) == NETWORKS[name].recurrent


def test_a_run_that_diverges_is_a_result(monkeypatch):
    few = partial(tasks.adding, dict(train=100, validation=50, test=64), 20)
    task = dataclasses.replace(
        find_task("adding-20", False), epochs=3, load=few, learning_rate=1e38
    )
    monkeypatch.setattr("tidegate.compare.runs.find_task", lambda *_: task)
    result = execute(Run("adding-20", "simple_rnn_unclipped", 8, seed=0))
    assert result["diverged"]
    assert len(result["curve"]) < 3
    json.dumps(result, allow_nan=False)


def call(out, *arguments):
    return main([*arguments, "--out", str(out)])


@needs_digits
def test_a_study_repeats_goes_on_and_writes_a_page_of_its_own(tmp_path, capsys):
    assert call(tmp_path / "a", *SMALL, "--jobs", "1") == 0
    printed = capsys.readouterr().out
    assert "SimpleRNN" in printed
    assert "baseline: most frequent" in printed
    first = (tmp_path / "a" / "results.csv").read_bytes()
    assert first.count(b"\n") == 5

    # Side by side in other processes: the same bits.
    assert call(tmp_path / "b", *SMALL, "--jobs", "2") == 0
    assert (tmp_path / "b" / "results.csv").read_bytes() == first
    assert (tmp_path / "b" / "results.json").read_bytes() == (
        tmp_path / "a" / "results.json"
    ).read_bytes()

    # What is lost or damaged is run again, and nothing else.
    runs = sorted((tmp_path / "a" / "runs").iterdir())
    assert len(runs) == 4
    kept = {path: path.stat().st_mtime_ns for path in runs[2:]}
    runs[0].unlink()
    runs[1].write_text(runs[1].read_text()[:100])
    assert call(tmp_path / "a", *SMALL, "--jobs", "1") == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (tmp_path / "a" / "results.csv").read_bytes() == first

    page = (tmp_path / "a" / "report.html").read_text()
    linked = re.findall(r"(?:src|href)=\"([^\"]{0,40})", page)
    assert len(linked) > 5
    for link in linked:
        assert link.startswith(("data:", "#", "results.", "timings.")), link
    assert "<script" not in page
    assert "@import" not in page
    assert sorted(p.suffix for p in (tmp_path / "a" / "plots").iterdir()).count(".svg") >= 1


@needs_digits
def test_an_interrupted_study_leaves_whole_results_and_no_processes(tmp_path):
    command = [sys.executable, "-m", "tidegate", "compare", *SMALL[:-1], "9", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    runs = tmp_path / "runs"
    deadline = time.monotonic() + 60
    while not (runs.exists() and any(runs.glob("*.json"))):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    # The pipes end when the last of the processes does.
    process.communicate(timeout=30)
    assert process.returncode == 130
    for path in runs.glob("*.json"):
        assert "error" in json.loads(path.read_text())


def test_data_that_are_missing_are_skipped_with_a_reason(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None)
    tasks.vowels.cache_clear()
    assert call(tmp_path, "--task", "vowels", "--cells", "gru", "--jobs", "1") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "vowels skipped: JapaneseVowels comes with the package aeon" in printed
    assert "JapaneseVowels comes with" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--task", "moon"), "task: expected names out of adding, .* got 'moon'"),
        (("--cells", "gru,transformer"), "cells: expected names out of .* got 'transformer'"),
        (("--seeds", "0"), "expected a number from 1 on, got 0"),
        (("--quick", "--full"), "not allowed with"),
    ],
)
def test_unknown_arguments_are_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(tmp_path, *arguments)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    write_atomically(path, "old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_results_of_other_settings_are_not_taken(tmp_path):
    store, run = Store(tmp_path), Run("recall-10", "gru", 8, 0)
    from tidegate.compare.runs import settings

    store.save(run, {"settings": settings(run), "error": 1.0})
    assert store.load(run)["error"] == 1.0
    store.save(run, {"settings": {**settings(run), "epochs": 1}, "error": 1.0})
    assert store.load(run) is None


# ---- Claims --------------------------------------------------------------------------------------


def entry(
    task,
    network,
    errors,
    sizing="parameters",
    baseline=75.0,
    factor=0.5,
    parameters=100,
    epochs=7,
):
    results = tuple(
        {
            "error": error,
            "validation_error": error,
            "parameters": parameters,
            "seconds_per_epoch": 1.0,
            "baselines": {"guess": baseline},
            "curve": [error] * epochs,
            "flow": {
                when: {"factor": factor, "largest": [0.5, 0.9], "largest_cell": [0.5, 3.0]}
                for when in ("start", "trained")
            },
        }
        for error in errors
    )
    return Entry(find_task(task, True), NETWORKS[network], sizing, 8, results)


def verdict(entries, start):
    study = Study(tuple(entries), {}, 3)
    return next(v for v in claims.verdicts(study) if v.claim.startswith(start))


@pytest.mark.parametrize(
    "gated, simple, outcome, words",
    [
        ([5, 6, 7], [20, 30, 40], "first", "GRU is ahead in every seed"),
        ([20, 30, 40], [5, 6, 7], "second", "SimpleRNN is ahead in every seed"),
        ([5, 6, 21], [20, 30, 40], "level", "no difference beyond the spread"),
        (
            [0, 0.2, 0.1],
            [0.5, 0.3, 0.9],
            "solved",
            "both solve it in every seed: GRU 0.1 (0 to 0.2) by epoch 7",
        ),
        ([74, 75, 76], [71, 72, 73], "none", "nobody does better than the baseline 75"),
        ([5], [20], "none", "one seed has no spread"),
        ([5, 6, 7], [None, 90, 95], "first", "95 (90 to diverged)"),
    ],
)
def test_who_is_better_is_computed_with_the_spread(gated, simple, outcome, words):
    first = entry("recall-100", "gru", gated)
    second = entry("recall-100", "simple_rnn", simple)
    found, sentence = claims.compare(first, second)
    assert found == outcome
    assert words in sentence


def test_claims_turn_with_the_results():
    start = "Gated networks keep"
    good, bad = [0.0, 0.1, 0.2], [50, 60, 70]
    for gru, simple, answer in (
        (good, bad, claims.HELD),
        (bad, good, claims.NOT),
        (good, good, claims.OPEN),
    ):
        found = verdict(
            [entry("recall-100", "gru", gru), entry("recall-100", "simple_rnn", simple)], start
        )
        assert found.answer == answer
    reach = verdict(
        [
            entry("recall-10", "gru", good),
            entry("recall-30", "gru", bad),
            entry("recall-100", "gru", good),  # luck: the shorter one was lost
            entry("recall-10", "simple_rnn", bad),
        ],
        start,
    ).reasons[-1]
    assert "GRU 10, SimpleRNN none" in reach


def test_tasks_that_both_solve_do_not_count_against_the_better():
    good, bad = [0.0, 0.1, 0.2], [50, 60, 70]
    found = verdict(
        [
            entry("recall-10", "gru", good),
            entry("recall-10", "simple_rnn", good),
            entry("recall-100", "gru", good),
            entry("recall-100", "simple_rnn", bad),
        ],
        "Gated networks keep",
    )
    assert found.answer == claims.HELD
    assert "solving it as well GRU" in found.reasons[0]


def test_every_gated_network_is_held_against_the_best_traditional_one():
    found = verdict(
        [
            entry("recall-100", "gru", [0.0, 0.1, 0.2]),
            entry("recall-100", "lstm", [74, 75, 76]),
            entry("recall-100", "dual_state_gru", [0.0, 20, 30]),
            entry("recall-100", "feed_forward", [50, 60, 70]),
            entry("recall-100", "feed_forward_all", [10, 24, 25]),
        ],
        "Gated networks keep",
    )
    assert found.answer == claims.IN_PART
    assert found.reasons[0] == (
        "recall after 100 steps: feed-forward, all steps 24 (10 to 25) is the best traditional "
        "network (baseline 75); of the gated ones ahead in every seed GRU 0.1 (0 to 0.2) by epoch "
        "7; not to be told from it DualStateGRU 20 (0 to 30); behind in every seed LSTM 75 (74 to "
        "76)."
    )


@pytest.mark.parametrize(
    "own, lstm, answer",
    [
        ([5, 6, 7], [6, 7, 8], claims.HELD),
        ([0.0, 0.1, 0.2], [0.1, 0.1, 0.2], claims.HELD),
        ([50, 60, 70], [5, 6, 7], claims.NOT),
        ([74, 75, 76], [74, 75, 76], claims.OPEN),
        ([5], [6], claims.OPEN),
    ],
)
def test_coupled_gates_are_judged_by_being_as_good_for_less(own, lstm, answer):
    found = verdict(
        [
            entry("recall-100", "coupled_lstm", own, "units", parameters=75),
            entry("recall-100", "lstm", lstm, "units", parameters=100),
        ],
        "The LSTM with coupled gates",
    )
    assert found.answer == answer
    assert found.reasons[-1] == (
        "CoupledLSTM against LSTM at equal units, median (range) of 1 task(s): 0.75 times the "
        "parameters, 1 times the seconds per epoch."
    )


@pytest.mark.parametrize(
    "variant, base, claim",
    [
        ("gru_chrono", "gru", "Chrono initialisation helps GRU to"),
        ("lstm_zero_bias", "lstm", "unit_forget_bias helps LSTM to"),
        ("simple_rnn_unclipped", "simple_rnn", "Clipping gradients helps SimpleRNN to"),
    ],
)
def test_an_aid_is_judged_by_what_has_it(variant, base, claim):
    good, bad = [0.0, 0.1, 0.2], [50, 60, 70]
    with_it, without = (variant, base) if NETWORKS[variant].aid else (base, variant)
    for first, second, answer in ((good, bad, claims.HELD), (bad, good, claims.NOT)):
        entries = [
            entry("recall-100", with_it, first, "units"),
            entry("recall-100", without, second, "units"),
        ]
        assert verdict(entries, claim).answer == answer


def test_who_solves_a_task_sooner_counts_for_aids_alone():
    solved = [0.0, 0.1, 0.2]
    slow, fast = entry("recall-100", "gru", solved), entry("recall-100", "lstm", solved, epochs=2)
    assert claims.compare(slow, fast)[0] == "solved"
    outcome, sentence = claims.compare(slow, fast, sooner=True)
    assert outcome == "second"
    assert sentence.startswith("LSTM solves it sooner in every seed: GRU 0.1 (0 to 0.2) by epoch 7")
    assert claims.compare(slow, slow, sooner=True)[0] == "solved"


@pytest.mark.parametrize(
    "value, text",
    [(0.00123456, "0.00123"), (12345.6, "12,346"), (3.66e16, "3.66e+16"), (np.inf, "diverged")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_gradients_are_judged_by_their_distance_from_level():
    def entries(gru, simple):
        return [
            entry("recall-100", "gru", [1, 1, 1], "units", factor=gru),
            entry("recall-100", "simple_rnn", [1, 1, 1], "units", factor=simple),
        ]

    start = "Gates keep the gradient"
    assert verdict(entries(0.99, 0.5), start).answer == claims.HELD
    assert verdict(entries(1.5, 1.01), start).answer == claims.NOT
    assert verdict(entries(0.5, 0.5), start).answer == claims.OPEN
    assert verdict(entries(0.5, 0.9), "Gradients can still vanish").answer == claims.HELD
    assert verdict(entries(0.99, 0.9), "Gradients can still vanish").answer == claims.NOT


def test_winners_are_named_with_who_cannot_be_told_from_them():
    gru, lstm = entry("recall-100", "gru", [5, 6, 7]), entry("recall-100", "lstm", [6, 8, 9])
    simple = entry("recall-100", "simple_rnn", [20, 30, 40])
    assert claims.winner([gru, lstm, simple]) == (
        "Lowest median: GRU 6 (5 to 7); within its spread: LSTM."
    )
    assert claims.winner([simple, gru]) == (
        "Best in every seed: GRU 6 (5 to 7); next: SimpleRNN 30 (20 to 40)."
    )
    assert claims.winner([entry("recall-100", "gru", [80, 81])]).startswith("Nobody is better")


def test_a_plan_runs_what_two_sizes_share_once():
    task = find_task("sunspots", False)
    plan = Plan((task,), (NETWORKS["lstm"], NETWORKS["gru_chrono"]), 2, False)
    assert len(plan.runs()) == 2  # variants are for memory tasks
    assert [run.seed for run in plan.runs()] == [0, 1]


# ---- The page in a browser -----------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def opened(page, profile):
    """The page as the browser has it, and what it has to complain about; without any network."""
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom"),
            *(f"--user-data-dir={profile}", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_digits
@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_the_page_opens_without_errors_or_requests(tmp_path):
    call(tmp_path, *SMALL, "--jobs", "1")
    page = tmp_path / "report.html"
    shown, complaints = opened(page, tmp_path / "profile")
    assert "<h2>Real data</h2>" in shown
    assert not complaints
    # The page forbids requests, so one would be among the complaints: this shows that it would.
    page.write_text(page.read_text().replace("<h1>", '<img src="http://localhost:9/x.png"><h1>'))
    _, complaints = opened(page, tmp_path / "profile")
    assert "Content Security Policy" in "".join(complaints)
