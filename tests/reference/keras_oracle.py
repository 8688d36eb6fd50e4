"""Keras's answers to the configurations, in a process of its own: `ask(judge, cases, models)`.

Its back-end is chosen per process, and its way of computing in float64 needs a patch that no other
test should see.  For each case the answer holds the outputs of every call and, in float64, how a
random weighting of the last outputs changes: PyTorch gives the gradients, the NumPy back-end a
derivative along a random direction of everything (inputs, weights, initial states) by central
differences, which sees an error in any entry.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

STEP = 1e-6  # of the central differences: rounding 1e-10, curvature 1e-12


def ask(judge, cases, models):
    """The answers: a list for the cases and one for the models."""
    env = {**os.environ, "KERAS_BACKEND": judge, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__],
        input=pickle.dumps((cases, models)),
        capture_output=True,
        env=env,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return pickle.loads(done.stdout)


def main():
    sys.path.insert(0, str(Path(__file__).parent.parent))
    cases, models = pickle.loads(sys.stdin.buffer.read())
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # for whatever else prints

    import keras
    from keras.src.backend.common import dtypes

    # Otherwise every operation on float64 arrays gives float32, except with TensorFlow.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    result = ([_case(keras, case) for case in cases], [_model(keras, model) for model in models])
    answers.write(pickle.dumps(result))


def _numpy(keras, outputs):
    from reference.configurations import flatten

    return [keras.ops.convert_to_numpy(output) for output in flatten(outputs)]


def _case(keras, case):
    from reference.configurations import build, weights_for

    layer = build(keras.layers, case["spec"])
    layer.build(case["calls"][0]["x"].shape)
    weights = weights_for([w.shape for w in layer.get_weights()], case["seed"], case["dtype"])
    layer.set_weights(weights)
    outputs = [_numpy(keras, layer(call["x"], **_options(call))) for call in case["calls"]]
    answer = {"outputs": outputs, "paths": [w.path for w in layer.weights]}
    # A stateful layer writes its states in place, which PyTorch cannot differentiate through.
    if case["dtype"] == "float64" and not layer.stateful:
        differentiate = _gradients if keras.backend.backend() == "torch" else _derivative
        answer.update(differentiate(keras, layer, case, weights, [o.shape for o in outputs[0]]))
    return answer


def _options(call):
    return {"initial_state": call["initial_state"], "mask": call["mask"]}


def _derivative(keras, layer, case, weights, shapes):
    import numpy as np

    from reference.configurations import cotangents_for, direction_for

    call = case["calls"][0]
    cotangents = cotangents_for(shapes, case["seed"])
    at = [call["x"], *weights, *(call["initial_state"] or [])]
    direction = direction_for([a.shape for a in at], case["seed"])

    def loss(step):
        moved = [a + step * d for a, d in zip(at, direction, strict=True)]
        layer.set_weights(moved[1 : 1 + len(weights)])
        state = moved[1 + len(weights) :] if call["initial_state"] else None
        outputs = _numpy(keras, layer(moved[0], **_options({**call, "initial_state": state})))
        return sum(np.sum(o * c) for o, c in zip(outputs, cotangents, strict=True))

    return {"derivative": (loss(STEP) - loss(-STEP)) / (2 * STEP)}


def _gradients(keras, layer, case, weights, shapes):
    import torch

    from reference.configurations import cotangents_for, flatten

    call = case["calls"][0]
    cotangents = cotangents_for(shapes, case["seed"])
    x = torch.tensor(call["x"], requires_grad=True)
    state = call["initial_state"]
    if state is not None:
        state = [torch.tensor(s, requires_grad=True) for s in state]
    outputs = flatten(layer(x, **_options({**call, "initial_state": state})))
    loss = sum((o * torch.tensor(c)).sum() for o, c in zip(outputs, cotangents, strict=True))
    sources = [x, *(w.value for w in layer.weights), *(state or [])]
    found = torch.autograd.grad(loss, sources, allow_unused=True)
    return {"gradients": [None if g is None else g.numpy() for g in found]}


def _model(keras, model):
    from reference.configurations import build, weights_for

    built = keras.Sequential([build(keras.layers, spec) for spec in model["layers"]])
    built.set_weights(weights_for([w.shape for w in built.get_weights()], model["seed"], "float32"))
    return keras.ops.convert_to_numpy(built(model["x"]))


if __name__ == "__main__":
    main()
