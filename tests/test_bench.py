"""`tidegate bench`: contestants do their task, results are compared, reports are complete."""

import json

import numpy as np
import pytest
from reference import cells as twin
from reference import optimizers as rules

from tidegate.bench import main
from tidegate.bench.problems import EPOCH, GATES, STATES, TASKS, Problem, Shape, shapes
from tidegate.bench.report import Row, Timing, geometric_mean
from tidegate.bench.rivals import CONTESTANTS
from tidegate.bench.run import _deviation
from tidegate.bench.worker import ContestantError, Worker

ODD = Shape("odd", 3, 5, 7, 11)
STEP = Shape("step", 1, 1, 7, 11)


def second_epoch(problem):
    """The mean of the losses of the second epoch's batches, all in float64 NumPy."""
    data = {name: array.astype(np.float64) for name, array in problem.arrays().items()}
    x, y = data.pop("x"), data.pop("y")
    weights = list(data.values())
    slots = [[np.zeros_like(w), np.zeros_like(w)] for w in weights]
    batch = problem.shape.batch
    losses = []
    for step in range(2 * EPOCH):
        rows = slice(step % EPOCH * batch, (step % EPOCH + 1) * batch)
        h, _, first = twin.forward(problem.cell, x[rows], *weights[:3])
        h, _, second = twin.forward(problem.cell, h, *weights[3:6])
        error = h[:, -1] @ weights[6] + weights[7] - y[rows]
        losses.append((error**2).mean())
        d_y = 2 * error / batch
        d_h = np.zeros_like(h)
        d_h[:, -1] = d_y @ weights[6].T
        upper = twin.backward(second, d_h)
        lower = twin.backward(first, upper["inputs"])
        names = ("kernel", "recurrent_kernel", "bias")
        gradients = [of[name] for of in (lower, upper) for name in names]
        gradients += [h[:, -1].T @ d_y, d_y.sum(axis=0)]
        # Keras's Adam as it is set by default.
        rate = 0.001 * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        for w, g, own in zip(weights, gradients, slots, strict=True):
            rules.update("adam", w, g, own, (rate, 0.1, 0.001, 1e-7))
    return np.array([np.mean(losses[EPOCH:])])


def expected_results(problem):
    if problem.task == "fit":
        return {"loss": second_epoch(problem)}
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
                prepared = worker.prepare(problem)
                if isinstance(prepared, str):
                    continue
                results, first = prepared
                assert first > 0
                supported += 1
                expected = expected_results(problem)
                assert results.keys() == expected.keys()
                assert _deviation(results, expected) <= problem.tolerance(), problem
                assert len(worker.burst(0.0)) == 1
        least = {"tidegate": len(GATES) * len(TASKS), "keras": 4 * 3}
        assert supported >= least.get(contestant.partition("-")[0], 6)


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
    # Kernels of 1 + 50 and 50 + 50 rows, each forward and twice backward but for the first one's
    # inputs, and Dense(1).
    fit = Problem("gru", shapes()["article"], "fit", 1)
    rows = 32 * 10 * (3 * (1 + 50) + 3 * (50 + 50) - 1)
    assert fit.flops == EPOCH * (2 * 3 * 50 * rows + 3 * 2 * 32 * 50)
    assert geometric_mean([2, 8]) == pytest.approx(4)
    row = Row(problem, 1.0)
    row.timings = {
        name: Timing.of([t] * 3, 0.0, 4.0) for name, t in (("tidegate", 2.0), ("A", 3.0))
    }
    assert row.ratio("A") == 1.5
    assert row.best_rival == "A"


def test_command_writes_tables_json_and_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    report, plot, tables = (tmp_path / f"bench.{end}" for end in ("json", "svg", "md"))
    options = ["--quick", "--shapes", "article,step-8", "--cells", "lstm", "--threads", "1"]
    options += ["--seconds", "0.02", "--rounds", "2", "--rivals", "none"]
    options += ["--json", str(report), "--plot", str(plot), "--markdown", str(tables)]
    assert main(options) == 0
    lines = tables.read_text().splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("#")] == [
        f"### {task}" for task in TASKS
    ]
    assert sum(line.startswith("| lstm |") for line in lines) == len(TASKS)
    shown = capsys.readouterr().out
    assert "FMA peak" in shown
    saved = json.loads(report.read_text())
    assert [entry["task"] for entry in saved["results"]] == list(TASKS)
    for entry in saved["results"]:
        timing = entry["timings"]["tidegate"]
        assert 0 < timing["best"] <= timing["median"]
        assert timing["first"] > 0
        assert entry["least_seconds"] > 0
    assert saved["limits"]["1"]["fma_flops"] > 1e9


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--cells", "transformer"])
    assert "expected names out of" in capsys.readouterr().err
