"""Instruction sets: a forced one really runs, all agree, and each is exact in itself.

The instruction set is chosen when tidegate is imported, so everything here runs in processes of its
own: this file is also their program.
"""

import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from reference import cells as twin
from reference import optimizers as rules

from tidegate import _core

ISAS = _core.config()["isas"]
LANES = {"sse2": 4, "neon": 4, "avx2": 8, "avx512": 16}  # float32
THREADS = (1, 2, 3, 7)
BATCH, TIME, FEATURES, UNITS = 9, 6, 5, 37  # every vector width has a tail
DTYPES = (np.float32, np.float64)


# -------------------------------------------------------------------------------- in the child
def arrays(cell, dtype):
    gates, _, bias_rows = twin.CELLS[cell]
    random = np.random.default_rng(11)
    columns = gates * UNITS
    shapes = {
        "x": (BATCH, TIME, FEATURES),
        "kernel": (FEATURES, columns),
        "recurrent_kernel": (UNITS, columns),
        "bias": (2, columns) if bias_rows == 2 else (columns,),
        "d_outputs": (BATCH, TIME, UNITS),
    }
    return {name: random.uniform(-0.4, 0.4, size).astype(dtype) for name, size in shapes.items()}


def results(cell, dtype, threads):
    """Outputs and every gradient."""
    data = arrays(cell, dtype)
    _core.set_num_threads(threads)
    layer = _core.Recurrent(cell, data["kernel"], data["recurrent_kernel"], data["bias"])
    outputs, _, context = layer.forward_training(data["x"])
    assert np.array_equal(outputs, layer.forward(data["x"])[0]), "training and inference differ"
    gradients = context.backward(data["d_outputs"])
    named = {f"d_{key}": gradients[key] for key in ("inputs", "kernel", "recurrent_kernel", "bias")}
    return {"outputs": outputs, **named}


def both_directions(cell, dtype, threads):
    """Outputs and every gradient of two calls at once, the other one backwards in time."""
    data = arrays(cell, dtype)
    _core.set_num_threads(threads)
    layer = _core.Recurrent(cell, data["kernel"], data["recurrent_kernel"], data["bias"])
    ways = (False, True)
    calls = [layer.prepare_forward_training(data["x"], go_backwards=way) for way in ways]
    done = _core.run_both(*calls)
    gradients = _core.run_both(*(d[2].prepare_backward(data["d_outputs"]) for d in done))
    named = {}
    for way, (outputs, _, _), grads in zip(ways, done, gradients, strict=True):
        named[f"outputs {way}"] = outputs
        for key in ("inputs", "kernel", "recurrent_kernel", "bias"):
            named[f"d_{key} {way}"] = grads[key]
    return named


def pieces(cell, dtype):
    """The same outputs, each row by itself and one step after the other."""
    data = arrays(cell, dtype)
    layer = _core.Recurrent(cell, data["kernel"], data["recurrent_kernel"], data["bias"])
    outputs = np.empty((BATCH, TIME, UNITS), dtype)
    for row in range(BATCH):
        states = None
        for t in range(TIME):
            x = np.ascontiguousarray(data["x"][row : row + 1, t : t + 1])
            y, states = layer.forward(x, states)
            outputs[row, t] = y[0, 0]
    return outputs


def updates(rule, dtype, step):
    """Three steps of two variables with tails, each step by `step(weights, gradients, slots, ..)`.

    Weights and slots after them; the last entries of the gradients are a NaN and an infinity.
    """
    slots, coefficients, _ = rules.RULES[rule]
    random = np.random.default_rng(5)
    draw = partial(random.uniform, 0.25, 0.75)
    weights = [draw(size=shape).astype(dtype) for shape in ((UNITS, 3), (5,))]
    kept = [[draw(size=w.shape).astype(dtype) for _ in range(slots)] for w in weights]
    for decay in (0.0, 0.125, 0.0):
        gradients = [random.uniform(-1, 1, w.shape).astype(dtype) for w in weights]
        gradients[1][-2:] = np.nan, np.inf
        step(weights, gradients, kept, draw(size=coefficients).tolist(), decay, 0.5)
    return [*weights, *kept[0], *kept[1]]


def engine_step(rule):
    def step(weights, gradients, slots, coefficients, decay, rate):
        updater = _core.Updater(rule, weights, slots, [True, False])
        updater.step(gradients, coefficients, decay, rate)

    return step


def twin_step(rule):
    def step(weights, gradients, slots, coefficients, decay, rate):
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            rules.update(rule, w, g, slots[i], coefficients, decay if i == 0 else 0, rate)

    return step


def child(file):
    _core._set_parallel_threshold(0)  # many threads on small shapes too
    saved = {"isa": _core.config()["isa"], "operations": _core.probe_multiply_add(1)}
    for cell in twin.CELLS:
        for dtype in DTYPES:
            for threads in THREADS:
                for name, array in results(cell, dtype, threads).items():
                    saved[f"{cell} {dtype.__name__} {threads} {name}"] = array
                for name, array in both_directions(cell, dtype, threads).items():
                    saved[f"{cell} {dtype.__name__} {threads} both {name}"] = array
            saved[f"{cell} {dtype.__name__} pieces"] = pieces(cell, dtype)
    for rule in _core.update_rules():
        for dtype in DTYPES:
            for threads in THREADS:
                _core.set_num_threads(threads)
                for i, array in enumerate(updates(rule, dtype, engine_step(rule))):
                    saved[f"{rule} {dtype.__name__} {threads} {i}"] = array
    np.savez(file, **saved)


# ------------------------------------------------------------------------------- in the parent
def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    @cache
    def run_isa(isa):
        file = tmp_path_factory.mktemp("isa") / f"{isa}.npz"
        done = python(__file__, str(file), TIDEGATE_ISA=isa)
        assert done.returncode == 0, done.stderr
        with np.load(file) as saved:
            return dict(saved)

    return run_isa


@pytest.mark.parametrize("isa", ISAS)
def test_forced_isa_runs(run, isa):
    """Not only its name: the width of its vectors shows in what a kernel says it computed."""
    saved = run(isa)
    assert str(saved["isa"]) == isa
    assert int(saved["operations"]) % (2 * LANES[isa]) == 0
    assert int(saved["operations"]) // LANES[isa] == 24  # 12 chains of multiply-adds


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != _core.config()["isa"]])
def test_engine_passes_its_tests(isa):
    """Twins, central differences and bits, which the other tests see on one instruction set."""
    engine = Path(__file__).with_name("test_engine.py")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(engine), TIDEGATE_ISA=isa)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("name", ["mmx", "avx2 ", "-"])
def test_unknown_isa_is_refused(name):
    done = python("-c", "import tidegate", TIDEGATE_ISA=name)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("ImportError: TIDEGATE_ISA: ")
    assert all(isa in error for isa in ISAS)


def test_best_isa_is_the_default():
    code = "from tidegate import _core; print(_core.config()['isa'])"
    environment = {key: value for key, value in os.environ.items() if key != "TIDEGATE_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ISAS[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("cell", twin.CELLS)
@pytest.mark.parametrize("isa", ISAS)
def test_isa_agrees_with_the_twin(run, isa, cell, dtype):
    saved, data = run(isa), arrays(cell, dtype)
    weights = (data["kernel"], data["recurrent_kernel"], data["bias"])
    outputs, _, context = twin.forward(cell, data["x"], *weights)
    expected = twin.backward(context, data["d_outputs"])
    expected = {f"d_{key}": value for key, value in expected.items()} | {"outputs": outputs}
    # A sum of n terms of order 1, rounded n times; steps add up in the gradients.
    longest = max(FEATURES + UNITS, BATCH * TIME)
    tolerance = 4 * longest * np.finfo(dtype).eps
    for name in ("outputs", "d_inputs", "d_kernel", "d_recurrent_kernel", "d_bias"):
        got = saved[f"{cell} {dtype.__name__} 1 {name}"]
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got / scale, expected[name] / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("isa", ISAS)
def test_isa_is_exact_for_any_thread_count(run, isa):
    saved = run(isa)
    for key, array in saved.items():
        cell, *rest = key.split(" ")
        if rest and rest[-1] != "pieces":
            dtype, _, *name = rest
            one = saved[" ".join([cell, dtype, "1", *name])]
            assert np.array_equal(array, one, equal_nan=True), key
            if name[-1] == "False":  # the forward direction of two
                assert np.array_equal(array, saved[f"{cell} {dtype} 1 {name[1]}"]), key


@pytest.mark.parametrize("isa", ISAS)
def test_isa_is_exact_for_any_batch_and_step_by_step(run, isa):
    saved = run(isa)
    for cell in twin.CELLS:
        for dtype in DTYPES:
            pieced = saved[f"{cell} {dtype.__name__} pieces"]
            assert np.array_equal(pieced, saved[f"{cell} {dtype.__name__} 1 outputs"]), cell


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("isa", ISAS)
def test_optimizer_steps_have_the_bits_of_the_twin(run, isa, rule, dtype):
    """On every instruction set and any number of threads (see the test above)."""
    saved = run(isa)
    expected = updates(rule, dtype, twin_step(rule))
    assert np.isnan(expected[1][-2]), rule
    for i, array in enumerate(expected):
        np.testing.assert_array_equal(saved[f"{rule} {dtype.__name__} 1 {i}"], array)


@pytest.mark.skipif(not {"sse2", "avx2"} <= set(ISAS), reason="needs sse2 and avx2")
def test_instruction_sets_are_not_each_others(run):
    """A fused multiply-add rounds once, SSE2 twice: equal bits would mean the same code."""
    key = "lstm float32 1 outputs"
    assert not np.array_equal(run("sse2")[key], run("avx2")[key])


if __name__ == "__main__":
    child(sys.argv[1])
