"""``python -m cv.utils``: print the environment, and where the parts of the namespace ``cv`` come from."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import cv
from cv.utils.env import collect_env

PARTS = (
    "fileio",
    "utils",
    "image",
    "arraymisc",
    "visualization",
    "video",
    "cnn",
    "runner",
    "parallel",
    "engine",
    "ops",
)


def main() -> None:
    """Print everything, one ``key: value`` a line."""
    write = sys.stdout.write
    for key, value in collect_env().items():
        write(f"{key}: {value}\n")
    write("\nThe namespace cv is made of these folders:\n")
    for folder in cv.__path__:
        write(f"  {folder}\n")
    write("and has these parts:\n")
    for part in PARTS:
        spec = find_spec(f"cv.{part}")
        write(f"  cv.{part}: {spec.origin if spec is not None else 'not installed'}\n")


if __name__ == "__main__":
    main()
