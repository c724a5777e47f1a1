"""Writes the stable-ABI symbols that one torch wheel exports.

    python tools/torch_symbols.py torch-2.10.0-*.whl > tools/torch_2.10_symbols.txt

tests/test_wheel.py checks that our libraries use nothing else, so that they load in that torch although
they were compiled beside a newer one. The wheel must be a CUDA build (the plain one from the index, for
Linux x86-64); needs `nm` of binutils.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIBRARIES = ("libtorch_cpu.so", "libtorch_cuda.so", "libc10.so", "libc10_cuda.so")

# C functions of the shims that torch/csrc/stable and torch/headeronly call. The functions generated per
# operator and device (aoti_torch_cpu_addmm_out …) are not part of the stable ABI.
STABLE = re.compile(r"^(aoti_torch_(?!cpu_|cuda_|mps_|xpu_)|torch_)\w+$")


def exported(wheel: Path) -> list[str]:
    """Sorted names of the stable-ABI functions that the libraries in ``wheel`` define."""
    names: set[str] = set()
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for library in LIBRARIES:
            path = archive.extract(f"torch/lib/{library}", folder)
            listing = subprocess.run(
                ["nm", "-D", "--defined-only", "--format=posix", path],
                check=True,
                capture_output=True,
                text=True,
            )
            names |= {line.split()[0].split("@")[0] for line in listing.stdout.splitlines() if line}
    return sorted(n for n in names if STABLE.match(n))


def main() -> None:
    wheel = Path(sys.argv[1])
    lines = [
        f"# Stable-ABI symbols exported by {wheel.name}; made by tools/torch_symbols.py",
        *exported(wheel),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
