"""Teach a small LSTM to sound like an overdriven guitar amplifier.

    python train.py            # one to two minutes; writes amp.safetensors, input.wav, target.wav

Both sounds are computed: plucked strings (Karplus-Strong) go in; what shall come out has passed two
soft clipping stages whose bias sags with the loudness, between a high-pass and a low-pass filter.
The network sees one sample at a time, so it has to learn the filters' and the sag's memory.
`process_wav.cpp` then plays any WAV file through it, in real time; `plot.py` draws the result.
"""

import argparse
import wave
from pathlib import Path

import numpy as np

import tidegate as tg

RATE = 44100
WINDOW = 1024  # samples of one training sequence
BATCH = 16


def plucked_strings(seconds: float, random: np.random.Generator) -> np.ndarray:
    """Notes and chords with pauses: a burst of noise in a loop that averages neighbours."""
    sound = np.zeros(int(seconds * RATE))
    start = 0
    while start < len(sound):
        root = 82.4 * 2 ** (random.integers(0, 24) / 12)
        for ratio in ((1.0,), (1.0, 1.5), (1.0, 1.25, 1.5))[random.integers(3)]:
            period = round(RATE / (root * ratio))
            length = min(RATE, len(sound) - start)
            rounds = -(-length // period)
            string = np.empty((rounds, period))
            string[0] = random.uniform(-1, 1, period) * random.uniform(0.2, 1)
            for i in range(1, rounds):
                string[i] = 0.498 * (string[i - 1] + np.roll(string[i - 1], 1))
            sound[start : start + length] += string.ravel()[:length]
        start += int(random.uniform(0.2, 0.6) * RATE)
    return 0.7 * sound / np.abs(sound).max()


def amplifier(x: np.ndarray) -> np.ndarray:
    """High-pass, a clipping stage with sag, a second one, low-pass."""
    y = np.empty_like(x)
    slow = level = low = 0.0
    for i, sample in enumerate(x):
        slow += 0.02 * (sample - slow)
        level += 0.01 * (abs(sample) - level)
        first = np.tanh(6 * (sample - slow) - 1.5 * level) + np.tanh(1.5 * level)
        low += 0.35 * (np.tanh(2 * first) - low)
        y[i] = 0.8 * low
    return y


def write_wav(path: Path, sound: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.int16(np.clip(sound, -1, 1) * 32767).tobytes())


def windows(sound: np.ndarray) -> np.ndarray:
    usable = len(sound) // WINDOW * WINDOW
    return sound[:usable].reshape(-1, WINDOW, 1).astype("float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("."), help="where the files go")
    parser.add_argument("--seconds", type=float, default=20, help="of sound to train with")
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    tg.set_random_seed(1)
    random = np.random.default_rng(1)

    x = plucked_strings(arguments.seconds, random)
    test_x = plucked_strings(5, random)
    y, test_y = amplifier(x), amplifier(test_x)

    model = tg.Sequential(
        [
            tg.layers.Input((None, 1)),
            tg.layers.LSTM(20, return_sequences=True),
            tg.layers.Dense(1),
        ]
    )
    inputs, targets = windows(x), windows(y)
    steps = arguments.epochs * -(-len(inputs) // BATCH)
    rate = tg.optimizers.schedules.CosineDecay(1e-2, steps, alpha=0.01)
    model.compile(optimizer=tg.optimizers.Adam(rate), loss="mse")
    model.fit(inputs, targets, batch_size=BATCH, epochs=arguments.epochs, verbose=2)
    predicted = model.predict(test_x[None, :, None].astype("float32"), verbose=0)[0, :, 0]
    error = np.sum((predicted - test_y) ** 2) / np.sum(test_y**2)
    print(f"error to signal on 5 s of other notes: {100 * error:.2f} %")

    arguments.folder.mkdir(parents=True, exist_ok=True)
    model.save(arguments.folder / "amp.safetensors")
    write_wav(arguments.folder / "input.wav", test_x)
    write_wav(arguments.folder / "target.wav", test_y)


if __name__ == "__main__":
    main()
