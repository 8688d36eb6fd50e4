"""`tidegate compare`: feed-forward and gated recurrent networks on the same data, as a study.

Modules, each using only those before it: `tasks` (data), `networks` (models), `runs` (one
training), `study` (all of them, kept in files), `tables` (figures as text), `claims` (what the
results say), `plots`, `costs` (against other frameworks), `report` (HTML), `main` (command line).
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line of `tidegate compare` and returns its exit code."""
    from .main import main as run

    return run(argv)
