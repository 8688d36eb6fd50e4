"""The C++ library from outside: README's program as written, and the C interface through ctypes."""

import ctypes
import functools
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tidegate as tg

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def prefix():
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    try:
        return tg.get_cmake_dir()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model():
    tg.set_random_seed(4)
    return tg.Sequential(
        [
            tg.layers.Input((None, 2)),
            tg.layers.LSTM(12, return_sequences=True),
            tg.layers.GRU(9),
            tg.layers.Dense(3, activation="tanh"),
        ]
    )


def _run(*command, cwd=None, **options):
    done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=600, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    return done.stdout


@pytest.fixture(scope="module")
def embed(prefix, tmp_path_factory):
    """The project tests/cpp/embed, built against the installed library."""
    build = tmp_path_factory.mktemp("embed")
    source = ROOT / "tests" / "cpp" / "embed"
    _run("cmake", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    _run("cmake", "--build", build)
    return build


def _steps(model, x):
    stream = model.stream()
    return np.concatenate([stream.step(row[None]) for row in x])


def test_readme(prefix, model, tmp_path):
    """The files and the command of README's section on embedding, as they stand there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", readme, re.DOTALL))
    assert {name: text.count("\n") for name, text in blocks.items()} == {
        "main.cpp": 10,
        "CMakeLists.txt": 5,
    }
    for name, text in blocks.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    [command] = re.findall(r"<!-- embed -->\n```bash\n(.*?)```", readme, re.DOTALL)
    assert '"$(tidegate --cmakedir)"' in command
    _run("sh", "-ec", command.replace("$(tidegate --cmakedir)", prefix), cwd=tmp_path)
    model.save(tmp_path / "model.safetensors")
    x = np.random.default_rng(2).standard_normal((50, 2)).astype("float32")
    output = _run(tmp_path / "build" / "embedding", cwd=tmp_path, input=x.tobytes())
    np.testing.assert_array_equal(np.frombuffer(output, "float32").reshape(50, 3), _steps(model, x))


def test_c_program(embed, model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    x = np.random.default_rng(2).standard_normal((6, 2)).astype("float32")
    output = _run(embed / "embed_c", tmp_path / "m.safetensors", *(repr(float(v)) for v in x.flat))
    numbers = np.array(output.decode().split("\n")[1:-1], "float32").reshape(6, 3)
    np.testing.assert_array_equal(numbers, _steps(model, x))
    _run(embed / "embed_cpp")


@pytest.fixture(scope="module")
def library(embed):
    [path] = embed.glob("libtidegate_c.*")
    c = ctypes.CDLL(str(path))
    for name in ("version", "error", "isa"):
        getattr(c, f"tidegate_{name}").restype = ctypes.c_char_p
    for name in ("model_load", "model_load_memory", "stream_new", "stream_copy", "pool_new"):
        getattr(c, f"tidegate_{name}").restype = ctypes.c_void_p
    for name in ("model_input_size", "model_output_size", "stream_batch", "stream_output_size"):
        getattr(c, f"tidegate_{name}").restype = ctypes.c_int64
    for name in ("stream_state_size", "pool_open", "pool_size"):
        getattr(c, f"tidegate_{name}").restype = ctypes.c_int64
    return c


def _pointer(array):
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ctypes(library, model, dtype, tmp_path):
    kind = {"float32": "float", "float64": "double"}[dtype]
    if dtype == "float64":
        model = tg.Sequential(
            [tg.layers.Input((None, 2), dtype=dtype), tg.layers.DualStateGRU(5, dtype=dtype)]
        )
    path = tmp_path / "m.safetensors"
    model.save(path)
    data, null = path.read_bytes(), None
    handle = ctypes.c_void_p(library.tidegate_model_load(str(path).encode()))
    again = ctypes.c_void_p(library.tidegate_model_load_memory(data, ctypes.c_size_t(len(data))))
    assert handle
    assert again
    library.tidegate_model_free(again)
    assert library.tidegate_model_load_memory(data, ctypes.c_size_t(len(data) - 1)) is null
    assert b"expected" in library.tidegate_error()
    out = library.tidegate_model_output_size(handle)
    assert library.tidegate_model_input_size(handle) == 2
    assert library.tidegate_model_is_double(handle) == (dtype == "float64")
    assert library.tidegate_model_returns_sequences(handle) == 0

    x = np.random.default_rng(2).standard_normal((3, 7, 2)).astype(dtype)
    y, expected = np.zeros((3, out), dtype), model.predict(x, verbose=0)
    sizes = ctypes.c_int64(3), ctypes.c_int64(7)
    predict = getattr(library, f"tidegate_model_predict_{kind}")
    assert predict(handle, _pointer(x), *sizes, _pointer(y)) == 0
    np.testing.assert_array_equal(y, expected)
    assert predict(handle, _pointer(x), ctypes.c_int64(-1), sizes[1], _pointer(y)) == -1
    assert b"predict batch" in library.tidegate_error()

    stream = ctypes.c_void_p(library.tidegate_stream_new(handle, ctypes.c_int64(3)))
    pool = ctypes.c_void_p(library.tidegate_pool_new(handle, ctypes.c_int64(3)))
    assert library.tidegate_stream_new(handle, ctypes.c_int64(0)) is null
    library.tidegate_model_free(handle)
    step = getattr(library, f"tidegate_stream_step_{kind}")
    pool_step = getattr(library, f"tidegate_pool_step_{kind}")
    ids = np.array([library.tidegate_pool_open(pool) for _ in range(3)], np.int64)
    assert library.tidegate_pool_open(pool) == -1
    twin = null
    for t in range(7):
        row = np.ascontiguousarray(x[:, t])
        if t == 3:
            twin = ctypes.c_void_p(library.tidegate_stream_copy(stream))
        step(stream, _pointer(row), _pointer(y))
        if twin:
            z = np.zeros_like(y)
            step(twin, _pointer(row), _pointer(z))
            np.testing.assert_array_equal(z, y)
        arguments = _pointer(ids), ctypes.c_int64(3), _pointer(row), _pointer(y)
        assert pool_step(pool, *arguments) == 0
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(y, expected)

    state = np.zeros((3, library.tidegate_stream_state_size(stream, 0)), dtype)
    get = functools.partial(getattr(library, f"tidegate_stream_get_state_{kind}"), stream)
    put = functools.partial(getattr(library, f"tidegate_stream_set_state_{kind}"), stream)
    assert get(0, 1, _pointer(state)) == 0
    assert np.abs(state).min() > 0
    assert put(0, 1, _pointer(state)) == 0
    assert library.tidegate_stream_reset_row(stream, ctypes.c_int64(1)) == 0
    assert get(0, 1, _pointer(state)) == 0
    assert (state[1] == 0).all()
    assert (state[0] != 0).all()
    assert get(9, 0, _pointer(state)) == put(0, 2, _pointer(state)) == -1
    assert library.tidegate_stream_states(stream, -1) == -1
    assert library.tidegate_stream_reset_row(stream, ctypes.c_int64(3)) == -1
    assert library.tidegate_pool_close(pool, ctypes.c_int64(1)) == 0
    assert library.tidegate_pool_close(pool, ctypes.c_int64(1)) == -1
    assert library.tidegate_pool_size(pool) == 2
    for kind_of, made in (("stream", stream), ("stream", twin), ("pool", pool)):
        getattr(library, f"tidegate_{kind_of}_free")(made)
