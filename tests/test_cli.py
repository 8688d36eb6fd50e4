"""The `tidegate` command."""

import subprocess
import sys

import numpy as np
import pytest

import tidegate
from tidegate.cli import main


@pytest.fixture(scope="module")
def model():
    tidegate.set_random_seed(3)
    layers = tidegate.layers
    return tidegate.Sequential(
        [
            layers.Input((10, 1)),
            layers.LSTM(8, return_sequences=True),
            layers.GRU(5),
            layers.Dense(1),
        ]
    )


def test_without_arguments_it_helps(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in ("compare", "bench", "convert", "info", "config"):
        assert command in shown


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == tidegate.__version__


def test_config_names_the_instruction_set(capsys):
    assert main(["config"]) == 0
    assert tidegate._core.config()["isa"] in capsys.readouterr().out


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(["config", "--bogus"])
    assert exit_code.value.code == 2
    assert "--bogus" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["info"], ["convert", "out.safetensors"]])
def test_missing_file_is_one_line(arguments, tmp_path, capsys):
    command, *rest = arguments
    missing = str(tmp_path / "missing.keras")
    assert main([command, missing, *(str(tmp_path / name) for name in rest)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tidegate: ")
    assert "missing.keras" in error
    assert error.count("\n") == 1


def test_convert_keeps_the_model(model, tmp_path, capsys):
    keras, safe, back = (str(tmp_path / f"model{e}") for e in (".keras", ".safetensors", "2.keras"))
    model.save(keras)
    assert main(["convert", keras, safe]) == 0
    assert main(["convert", safe, back]) == 0
    x = np.random.default_rng(0).normal(size=(4, 10, 1)).astype("float32")
    expected = model.predict(x, verbose=0)
    for path in (keras, safe, back):
        assert np.array_equal(tidegate.load_model(path).predict(x, verbose=0), expected), path
    capsys.readouterr()
    assert main(["info", safe]) == 0
    shown = capsys.readouterr().out
    assert f"{model.count_params():,}" in shown
    assert "LSTM" in shown


def test_convert_to_weights_alone(model, tmp_path):
    source, weights = str(tmp_path / "model.keras"), str(tmp_path / "model.weights.h5")
    model.save(source)
    assert main(["convert", source, weights]) == 0
    other = tidegate.load_model(source)
    other.set_weights([np.zeros(weight.shape) for weight in other.weights])
    other.load_weights(weights)
    for expected, got in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(expected, got)
