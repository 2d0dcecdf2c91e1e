"""What runs on a GPU node can be imported there, without what only commands need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
ABSENT = ("prefect", "SimpleITK", "nibabel", "pydicom", "playwright", "cupy", "dask_cuda")

CODE = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.path[:0] = {path!r}
for name in {names!r}:
    importlib.import_module(name)
print(*sorted(sys.modules))
"""


def test_the_tests_and_the_benchmark_of_a_gpu_need_neither_prefect_nor_simpleitk() -> None:
    names = ["conftest", "gpu", *sorted(p.stem for p in (TESTS / "gpu").glob("*.py"))]
    path = [str(p) for p in (TESTS.parent, TESTS, TESTS / "gpu", TESTS / "bench")]
    code = CODE.format(absent=ABSENT, path=path, names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = done.stdout.split()
    assert {"flows.cluster", "fingerprint.search.finish", "test_gpu_clusters"} <= set(loaded)
    assert not set(loaded) & set(ABSENT)
