"""Random configurations of the recurrent layers against Keras itself: outputs, states, gradients.

TIDEGATE_CASES sets how many are drawn (300 by default; each judge's seeds go on from there).
"""

import importlib.util
import os

import numpy as np
import pytest
from reference.configurations import (
    build,
    cotangents_for,
    direction_for,
    flatten,
    random_case,
    random_model,
    weights_for,
)
from reference.keras_oracle import ask

import tidegate as tg

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("keras"), reason="needs Keras")

CASES = int(os.environ.get("TIDEGATE_CASES", "300"))
JUDGES = {
    "numpy": range(CASES),
    # Its gradients are exact, and it decides about masked steps before any valid one.
    "torch": range(CASES, CASES + CASES // 3),
}
MODELS = range(CASES // 6)

# Relative to the scale of the outputs: some 40 roundings, at most 5 steps of at most 9 units.
FORWARD = {"float32": 2e-6, "float64": 1e-12}
# Of Keras's central differences: rounding of a loss of size 1 to 100 over a step of 1e-6.
DERIVATIVE = 1e-7
GRADIENT = 1e-11


class Judge:
    """Keras's answers by seed, asked for once."""

    def __init__(self, name):
        self.cases = {seed: random_case(seed, name) for seed in JUDGES[name]}
        models = [random_model(seed) for seed in MODELS] if name == "numpy" else []
        answers, self.models = ask(name, list(self.cases.values()), models)
        self.answers = dict(zip(self.cases, answers, strict=True))


@pytest.fixture(scope="module")
def judges():
    found = {}

    def judge(name):
        if name not in found:
            found[name] = None  # also if it fails: it would fail for every seed
            found[name] = Judge(name)
        if found[name] is None:
            pytest.fail(f"no answers from Keras on {name}, see the first failure")
        return found[name]

    return judge


def relative(ours, theirs):
    return np.max(np.abs(ours - theirs), initial=0) / max(1, np.max(np.abs(theirs), initial=0))


def gradients_of(layer, call, seed):
    """Outputs, and the gradients by inputs, weights and initial states."""
    outputs = layer(call["x"], call["initial_state"], call["mask"], training=True)
    cotangents = iter(cotangents_for([o.shape for o in flatten(outputs)], seed))

    def like(value):
        if isinstance(value, list | tuple):
            return tuple(like(entry) for entry in value)
        return next(cotangents)

    d_x = layer.backward(like(outputs))
    states = []
    if call["initial_state"] is not None:
        parts = [layer] if hasattr(layer, "cell") else [layer.forward_layer, layer.backward_layer]
        states = [d for part in parts for d in part.initial_state_gradients]
    return flatten(outputs), [d_x, *(w.gradient for w in layer.weights), *states]


@pytest.mark.parametrize(
    "name, seed",
    [
        pytest.param(
            name,
            seed,
            id=f"{name}-{seed}",
            marks=pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"needs {name}"),
        )
        for name, seeds in JUDGES.items()
        for seed in seeds
    ],
)
def test_layer(name, seed, judges):
    judge = judges(name)
    case, answer = judge.cases[seed], judge.answers[seed]
    layer = build(tg.layers, case["spec"])
    layer.build(case["calls"][0]["x"].shape)
    weights = weights_for([w.shape for w in layer.weights], seed, case["dtype"])
    layer.set_weights(weights)
    for call, theirs in zip(case["calls"], answer["outputs"], strict=True):
        ours = flatten(layer(call["x"], call["initial_state"], call["mask"]))
        assert [o.shape for o in ours] == [t.shape for t in theirs]
        assert all(o.dtype == case["dtype"] for o in ours)
        for o, t in zip(ours, theirs, strict=True):
            assert relative(o, t) <= FORWARD[case["dtype"]]
    if "derivative" not in answer and "gradients" not in answer:
        return
    call = case["calls"][0]
    _, gradients = gradients_of(layer, call, seed)
    if "gradients" in answer:
        for g, t in zip(gradients, answer["gradients"], strict=True):
            assert relative(g, np.zeros_like(g) if t is None else t) <= GRADIENT
    else:
        direction = direction_for([g.shape for g in gradients], seed)
        terms = [np.sum(g * d) for g, d in zip(gradients, direction, strict=True)]
        scale = max(1, np.sum(np.abs(terms)))
        assert abs(sum(terms) - answer["derivative"]) <= DERIVATIVE * scale


@pytest.mark.parametrize("seed", MODELS)
def test_masks_through_models(seed, judges):
    case, theirs = random_model(seed), judges("numpy").models[seed]
    model = tg.Sequential([build(tg.layers, spec) for spec in case["layers"]])
    model.set_weights(weights_for([w.shape for w in model.weights], seed, "float32"))
    assert relative(model(case["x"]), theirs) <= 4 * FORWARD["float32"]
