"""`tidegate bench`: contestants do their task, results are compared, reports are complete."""

import json

import numpy as np
import pytest
from reference import cells as twin

from tidegate.bench import main
from tidegate.bench.problems import GATES, STATES, TASKS, Problem, Shape, shapes
from tidegate.bench.report import Row, Timing, geometric_mean
from tidegate.bench.rivals import CONTESTANTS
from tidegate.bench.run import _deviation
from tidegate.bench.worker import ContestantError, Worker

ODD = Shape("odd", 3, 5, 7, 11)
STEP = Shape("step", 1, 1, 7, 11)


def expected_results(problem):
    data = problem.arrays()
    weights = (data["kernel"], data["recurrent_kernel"], data["bias"])
    outputs, states, context = twin.forward(problem.cell, data["x"], *weights)
    if problem.task == "step":
        again = twin.forward(problem.cell, data["x"], *weights, initial_state=states)
        return {"outputs": again[0]}
    if problem.task == "inference":
        return {"outputs": outputs}
    gradients = twin.backward(context, data["d_outputs"])
    names = ("inputs", "kernel", "recurrent_kernel", "bias")
    return {"outputs": outputs} | {name: gradients[name] for name in names}


@pytest.mark.parametrize("contestant", CONTESTANTS)
def test_contestant_does_the_task(contestant):
    """Every cell and task a contestant supports gives the twin's results."""
    with Worker(contestant, threads=1) as worker:
        if worker.version() is None:
            pytest.skip(f"{contestant} is not installed")
        supported = 0
        for cell in GATES:
            for task in TASKS:
                problem = Problem(cell, STEP if task == "step" else ODD, task, 1)
                results = worker.prepare(problem)
                if isinstance(results, str):
                    continue
                supported += 1
                expected = expected_results(problem)
                assert results.keys() == expected.keys()
                assert _deviation(results, expected) <= problem.tolerance(), problem
                assert len(worker.burst(0.0)) == 1
        assert supported >= (len(GATES) * len(TASKS) if contestant == "tidegate" else 6)


def test_a_failing_contestant_is_told_from_an_absent_one():
    with Worker("tidegate", threads=1) as worker:
        with pytest.raises(ContestantError, match="no_such_cell"):
            worker.prepare(Problem("no_such_cell", ODD, "inference", 1))
        assert worker.version()  # and its process lives on


def test_wrong_results_are_seen():
    problem = Problem("gru", ODD, "training", 1)
    right = expected_results(problem)
    swapped = right | {"bias": right["bias"][::-1]}
    assert _deviation(right, right) == 0
    assert _deviation(swapped, right) > problem.tolerance()
    assert _deviation(right | {"kernel": right["kernel"] * np.nan}, right) == np.inf
    with pytest.raises(ContestantError, match="outputs: expected shape"):
        _deviation(right | {"outputs": right["outputs"][:1]}, right)


def test_shapes_are_the_named_ones():
    assert shapes()["article"] == ("article", 32, 10, 1, 50)
    assert {"stream-64", "small", "medium", "large", "odd", "step-512", "audio-20"} <= set(shapes())
    assert set(GATES) == set(STATES) == set(twin.CELLS)


def test_work_is_counted_as_documented():
    problem = Problem("lstm", shapes()["medium"], "inference", 1)
    assert problem.flops == 2 * 4 * 512 * 1024 * 64 * 50
    assert Problem("lstm", shapes()["medium"], "training", 1).flops == 3 * problem.flops
    assert geometric_mean([2, 8]) == pytest.approx(4)
    row = Row(problem, 1.0)
    row.timings = {name: Timing.of([t] * 3, 0.0) for name, t in (("tidegate", 2.0), ("A", 3.0))}
    assert row.ratio("A") == 1.5
    assert row.best_rival == "A"


def test_command_writes_table_json_and_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    report, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    options = ["--quick", "--shapes", "article,step-8", "--cells", "lstm", "--threads", "1"]
    options += ["--seconds", "0.02", "--rounds", "2", "--rivals", "none"]
    assert main([*options, "--json", str(report), "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert "FMA peak" in shown
    saved = json.loads(report.read_text())
    assert [entry["task"] for entry in saved["results"]] == ["inference", "training", "step"]
    for entry in saved["results"]:
        timing = entry["timings"]["tidegate"]
        assert 0 < timing["best"] <= timing["median"]
        assert entry["least_seconds"] > 0
    assert saved["limits"]["1"]["fma_flops"] > 1e9


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--cells", "transformer"])
    assert "expected names out of" in capsys.readouterr().err
