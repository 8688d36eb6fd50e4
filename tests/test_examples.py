"""The examples run as their README says, with less work."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tidegate as tg

EXAMPLES = Path(__file__).parents[1] / "examples"


def _run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_amp(tmp_path):
    pytest.importorskip("matplotlib")
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    try:
        prefix = tg.get_cmake_dir()
    except OSError as error:
        pytest.skip(str(error))
    source = EXAMPLES / "amp"
    _run(sys.executable, source / "train.py", "--seconds", "1", "--epochs", "1", cwd=tmp_path)
    _run("cmake", "-S", source, "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}", cwd=tmp_path)
    _run("cmake", "--build", "build", cwd=tmp_path)
    program = tmp_path / "build" / "process_wav"
    shown = _run(program, "amp.safetensors", "input.wav", "output.wav", "100", cwd=tmp_path)
    assert float(re.search(r"real-time factor ([\d.]+)", shown)[1]) < 1
    _run(sys.executable, source / "plot.py", cwd=tmp_path)
    assert (tmp_path / "amp.png").stat().st_size > 10000

    # The file that came out is what predict gives.
    output = np.frombuffer((tmp_path / "output.wav").read_bytes()[44:], "<f4")
    sound = np.frombuffer((tmp_path / "input.wav").read_bytes()[44:], "<i2") / np.float32(32768)
    model = tg.load_model(tmp_path / "amp.safetensors")
    expected = model.predict(sound[None, :20000, None].astype("float32"), verbose=0)
    np.testing.assert_array_equal(output[:20000], expected[0, :, 0])

    for arguments, message in (
        (["none.safetensors", "input.wav", "o.wav"], "No such file"),
        (["amp.safetensors", "amp.safetensors", "o.wav"], "expected a WAV file"),
    ):
        done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        assert message in done.stderr
