"""Random configurations of layers and models, as plain data, and how to build and feed them.

Both this package and Keras are built and fed from the same description: `build` takes the module
`layers` of either.  Everything follows from the seed.
"""

import numpy as np

ACTIVATIONS = (
    *("tanh", "tanh", "relu", "softsign", "gelu", "elu", "selu", "silu", "hard_sigmoid"),
    *("sigmoid", "softplus", "leaky_relu", "hard_tanh", "relu6", None),
)
GATES = ("sigmoid", "sigmoid", "hard_sigmoid", "tanh", "softsign")


class Spec(tuple):
    """(class name, keyword arguments); arguments may be specs or lists of them."""


def build(layers, spec):
    """The layer that `spec` describes, of either package."""
    name, kwargs = spec
    return getattr(layers, name)(**{key: _built(layers, value) for key, value in kwargs.items()})


def _built(layers, value):
    if isinstance(value, Spec):
        return build(layers, value)
    return [_built(layers, entry) for entry in value] if isinstance(value, list) else value


def random_case(seed, judge):
    """A configuration of one recurrent layer with its data.

    Args:
        seed: Anything the random generator takes.
        judge: Keras's back-end, "numpy" or "torch"; each has cases in which it is not the judge.

    Returns:
        A dict: spec, dtype, and per call x, mask, initial_state.
    """
    rng = np.random.default_rng([seed, len(judge)])
    pick = lambda *options: options[rng.integers(len(options))]  # noqa: E731
    yes = lambda share=0.5: bool(rng.random() < share)  # noqa: E731

    dtype = pick("float32", "float64")
    name = pick("LSTM", "GRU", "SimpleRNN")
    kind = pick("plain", "plain", "plain", "bidirectional", "cell", "stack")
    batch, time, features = (int(n) for n in rng.integers(1, 6, 3))
    units = int(rng.integers(1, 10))
    # PyTorch's derivative of hard_sigmoid, 1/6, is that of float32.
    usable = lambda names: [n for n in names if judge != "torch" or n != "hard_sigmoid"]  # noqa: E731
    cell = {
        "units": units,
        "activation": pick(*usable(ACTIVATIONS)),
        "use_bias": yes(0.8),
        "dtype": dtype,
    }
    if name != "SimpleRNN":
        cell["recurrent_activation"] = pick(*usable(GATES))
    if name == "GRU":
        cell["reset_after"] = yes()
    masked = yes()
    rnn = {
        "return_sequences": yes(),
        "return_state": yes(),
        "go_backwards": yes(0.3) and kind != "bidirectional",
        "stateful": yes(0.2),
        "zero_output_for_mask": yes(0.3),
        # Keras's own unrolled loops take masks otherwise.
        "unroll": yes(0.2) and not masked,
        "dtype": dtype,
    }
    if kind == "bidirectional" and rnn["stateful"]:
        rnn["return_state"] = False  # Keras 3.15.1 fails to make the states' mask
    if kind == "stack":
        more = [Spec(("GRUCell", {"units": 3, "dtype": dtype}))]
        more.append(Spec(("LSTMCell", {"units": 2, "dtype": dtype})))
        cells = [Spec((f"{name}Cell", cell)), *more]
        # Given bare cells, Keras 3.15.1 computes the stack in float32 whatever the dtype.
        stack = Spec(("StackedRNNCells", {"cells": cells, "dtype": dtype}))
        spec = Spec(("RNN", {"cell": stack, **rnn}))
    elif kind == "cell":
        spec = Spec(("RNN", {"cell": Spec((f"{name}Cell", cell)), **rnn}))
    else:
        spec = Spec((name, {**rnn, **cell}))
    if kind == "bidirectional":
        mode = pick("concat", "sum", "ave", "mul", None)
        spec = Spec(("Bidirectional", {"layer": spec, "merge_mode": mode, "dtype": dtype}))

    # With unmasked steps first there is an output to repeat; before, Keras's back-ends disagree
    # where the initial state is not zero, and PyTorch's is the judge.
    repeats = not rnn["zero_output_for_mask"]
    if kind == "bidirectional":  # which decides for itself
        repeats = not rnn["return_sequences"]
    starts_valid = repeats and judge != "torch"
    count = (2 if name == "LSTM" else 1) * (2 if kind == "bidirectional" else 1)
    calls = []
    for _ in range(pick(1, 2, 3) if rnn["stateful"] else 1):
        mask = rng.random((batch, time)) > 0.35 if masked else None
        state = None
        if kind != "stack" and yes(0.4):
            state = [rng.normal(size=(batch, units)).astype(dtype) for _ in range(count)]
        if mask is not None and starts_valid:
            first = -1 if rnn["go_backwards"] else 0
            mask[:, [0, -1] if kind == "bidirectional" else first] = True
        x = rng.normal(size=(batch, time, features)).astype(dtype)
        calls.append({"x": x, "mask": mask, "initial_state": state})
    return {"seed": seed, "spec": spec, "dtype": dtype, "calls": calls}


def random_model(seed):
    """A stack of layers through which a mask goes, with its data; float32."""
    rng = np.random.default_rng([seed, 77])
    pick = lambda *options: options[rng.integers(len(options))]  # noqa: E731

    def recurrent(**kwargs):
        name = pick("LSTM", "GRU", "SimpleRNN")
        return Spec((name, {"units": int(rng.integers(1, 6)), **kwargs}))

    time = int(rng.integers(1, 7))
    batch = int(rng.integers(1, 5))
    if rng.random() < 0.5:
        x = rng.integers(0, 4, (batch, time))
        shape = (time,)
        entry = (
            "Embedding",
            {"input_dim": 4, "output_dim": 3, "mask_zero": pick(True, True, False)},
        )
    else:
        x = rng.normal(size=(batch, time, 2)).astype("float32")
        x[rng.random((batch, time)) < 0.4] = 0.5
        shape = (time, 2)
        entry = ("Masking", {"mask_value": 0.5})
    layers = [Spec(("Input", {"shape": shape})), Spec(entry)]
    for _ in range(rng.integers(0, 4)):
        inner = Spec(("Dense", {"units": 3, "activation": pick("tanh", "softmax", None)}))
        both = {"layer": recurrent(return_sequences=True), "merge_mode": pick("sum", "concat")}
        layers.append(
            pick(
                recurrent(return_sequences=True),
                Spec(("Bidirectional", both)),
                inner,
                Spec(("TimeDistributed", {"layer": inner})),
                Spec(("Dropout", {"rate": 0.3})),
                Spec(("Activation", {"activation": "relu"})),
            )
        )
    if rng.random() < 0.7:
        layers.append(recurrent(go_backwards=pick(True, False)))
        layers.append(Spec(("Dense", {"units": 2})))
    return {"seed": seed, "layers": layers, "x": x}


def weights_for(shapes, seed, dtype):
    """Weights of these shapes."""
    rng = np.random.default_rng([seed, 1])
    return [(0.4 * rng.normal(size=shape)).astype(dtype) for shape in shapes]


def cotangents_for(shapes, seed):
    """What each output is multiplied by to get one number to differentiate."""
    rng = np.random.default_rng([seed, 2])
    return [rng.normal(size=shape) for shape in shapes]


def direction_for(shapes, seed):
    """A direction in which to differentiate."""
    rng = np.random.default_rng([seed, 3])
    return [rng.normal(size=shape) for shape in shapes]


def flatten(value):
    """The leaves of nested lists and tuples."""
    if isinstance(value, list | tuple):
        return [leaf for entry in value for leaf in flatten(entry)]
    return [value]
