"""`tidegate bench`: this machine, tidegate against the frameworks that are installed.

Every contestant does the same task on the same data in a process of its own, restricted to the same
CPUs; results are compared before anything is timed, and timed bursts take turns, so that a noisy
minute hits everyone. Methods and columns are explained in the repository's bench/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark's command line and returns its exit code."""
    from .run import main as run

    return run(argv)
