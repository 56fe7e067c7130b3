"""Who may import whom: the contracts of the import linter, run as a test."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_the_layers_hold():
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run((str(tool),), cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
