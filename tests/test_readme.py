"""What README.md shows runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_examples(tmp_path):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + "\nprint(prediction.shape)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(1, 1)"


def test_marked_commands_are_one_code_block_each():
    for mark, expected in (("run", "tidegate compare"), ("test", "pytest")):
        blocks = re.findall(
            rf"^<!-- {mark} -->\n```\w*\n(.*?)^```", README, re.MULTILINE | re.DOTALL
        )
        assert len(blocks) == 1
        assert expected in blocks[0]


def test_links_lead_somewhere():
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (root / target).exists(), target
