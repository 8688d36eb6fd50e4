"""tidegate and oneDNN in turn, both called from C++: medians, ratios, their geometric mean.

python bench/onednn.py build/release/bench/native/bench_layers [FILTER] [REPETITIONS]

FILTER is a regular expression over names (default: LSTM and GRU, every sequence). Each pair runs in
a process of its own, repetitions in random order. Exits with 1 where results differ.
"""

import json
import statistics
import subprocess
import sys


def run(binary, *options):
    command = [binary, *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(binary, names=r"^(lstm|gru)/", repetitions="9"):
    listed = run(binary, "--benchmark_list_tests", f"--benchmark_filter={names}").splitlines()
    rivals = {name for name in listed if "/onednn/" in name}
    pairs = [name for name in listed if name.replace("/real_time", "/onednn/real_time") in rivals]
    if not pairs:
        sys.exit(f"onednn.py: expected pairs of benchmarks that match `{names}`, got none")
    columns = ["cell", "task", "shape", "threads", "tidegate us", "oneDNN us", "ratio"]
    print("|", " | ".join(columns), "|\n" + "| --- " * len(columns) + "|")
    ratios = {}
    for name in pairs:
        cell, task, shape, threads, _ = name.split("/")
        pair = name.replace("/real_time", "(/onednn)?/real_time")
        report = run(
            binary,
            f"--benchmark_filter=^{pair}$",
            f"--benchmark_repetitions={repetitions}",
            "--benchmark_enable_random_interleaving=true",
            "--benchmark_min_time=0.1",
            "--benchmark_format=json",
        )
        medians = {
            entry["run_name"]: entry["real_time"] / 1000  # from nanoseconds
            for entry in json.loads(report)["benchmarks"]
            if entry.get("aggregate_name") == "median"
        }
        own = medians.pop(name)
        (rival,) = medians.values()
        ratios.setdefault(task, []).append(rival / own)
        print(
            f"| {cell} | {task} | {shape} | {threads} | {own:,.1f} | {rival:,.1f} "
            f"| {rival / own:.2f}x |",
            flush=True,
        )
    for task, values in ratios.items():
        mean = statistics.geometric_mean(values)
        print(f"\n{task}: geometric mean {mean:.2f}x, least {min(values):.2f}x")


if __name__ == "__main__":
    main(*sys.argv[1:])
