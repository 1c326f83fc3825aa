"""Out of strict mode, with values that raise whatever is asked of them: swallowed, said once, and no difference."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = 2000


def test_hostile_values_make_no_difference_in_production() -> None:
    environment = {**os.environ, "RVH_TRACE_STRICT": "0", "RVH_TRACE_EXAMPLES": str(EXAMPLES)}
    suite = Path(__file__).with_name("test_scripts.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(suite)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "transparency: " in run.stdout
