"""Every example runs as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

# what a reader is meant to see; a checkpoint that no longer shows it needs another example
SHOWN = {
    "01_calculator": ["space group 221", "back to within 0.0"],
    "04_inpainting": [f"seed {seed}: " for seed in range(5)] + [" to 0.0"],
    "06_space_group": [f"seed {seed}, space group 136: a = 4." for seed in range(5)],
    "07_relax_in_group": ["Cu in Fm-3m: a = 3.590 Å", "Cu in Im-3m: space group 229"],
}
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "nan" not in done.stdout.lower().split()
    for text in SHOWN.get(path.stem, []):
        assert text in done.stdout
