"""Writes training.json: what Keras gets in the trainings of scenarios.py.

    python tests/golden/make_golden.py

Needs Keras and PyTorch.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from scenarios import JUDGES, SCENARIOS


def answers_of(judge):
    """The numbers of the scenarios that Keras on this back-end judges."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, judge],
        env={**os.environ, "KERAS_BACKEND": judge},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if len(sys.argv) > 1:
        import keras

        found = {}
        for name in JUDGES[sys.argv[1]]:
            keras.utils.clear_session()
            found[name] = SCENARIOS[name](keras)
        print(json.dumps({"keras": keras.__version__, **found}))
        return
    golden = {}
    for judge in JUDGES:
        golden.update(answers_of(judge))
    path = Path(__file__).with_name("training.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
