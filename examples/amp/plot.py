"""Draw a stretch of input, target and output as `amp.png`.

python plot.py [--folder FOLDER] [--start SECONDS] [--length SECONDS]
"""

import argparse
import struct
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt


def read_wav(path: Path) -> tuple[int, np.ndarray]:
    """Rate and samples of one channel of 16-bit integers or 32-bit floats."""
    data = path.read_bytes()
    at, rate, bits = 12, 0, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if name == b"fmt ":
            rate, bits = struct.unpack_from("<I", data, at + 12)[0], data[at + 22]
        elif name == b"data":
            sound = data[at + 8 : at + 8 + size]
            return rate, (
                np.frombuffer(sound, "<f4")
                if bits == 32
                else np.frombuffer(sound, "<i2").astype("float32") / 32768
            )
        at += 8 + size + size % 2
    raise ValueError(f"{path}: expected a WAV file with data, got none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("."), help="where the files are")
    parser.add_argument("--start", type=float, default=1.0, help="seconds from the beginning")
    parser.add_argument("--length", type=float, default=0.03, help="seconds")
    arguments = parser.parse_args()
    sounds = {
        name: read_wav(arguments.folder / f"{name}.wav") for name in ("input", "target", "output")
    }
    rate = sounds["input"][0]
    part = slice(int(arguments.start * rate), int((arguments.start + arguments.length) * rate))
    error = np.sum((sounds["output"][1] - sounds["target"][1]) ** 2) / np.sum(
        sounds["target"][1] ** 2
    )
    figure, axes = plt.subplots(2, sharex=True, figsize=(9, 5), layout="constrained")
    milliseconds = np.arange(part.stop - part.start) / rate * 1000
    axes[0].plot(milliseconds, sounds["input"][1][part], color="0.4")
    axes[0].set_ylabel("input")
    axes[1].plot(milliseconds, sounds["target"][1][part], label="amplifier (target)", linewidth=2.5)
    axes[1].plot(milliseconds, sounds["output"][1][part], label="network, in C++", linewidth=1)
    axes[1].set_ylabel("output")
    axes[1].set_xlabel(f"milliseconds from {arguments.start:g} s")
    axes[1].legend(loc="upper right")
    figure.suptitle(f"error to signal {100 * error:.2f} %")
    figure.savefig(arguments.folder / "amp.png", dpi=120)
    print(f"{arguments.folder / 'amp.png'}: error to signal {100 * error:.2f} %")


if __name__ == "__main__":
    main()
