from __future__ import annotations

import numpy as np
import pytest

from cv_testing.images import smooth_image


@pytest.fixture
def photo() -> np.ndarray:
    """(40, 60, 3) uint8, colourful and smooth."""
    return smooth_image()
