"""psa_mask against loops over the definition."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import PSAMask, psa_mask
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)

OP = torch.ops.cv.psa_mask.default
OP_BACKWARD = torch.ops.cv.psa_mask_backward.default
TYPES = ["collect", "distribute"]


def oracle(masks: Tensor, psa_type: str, mask_size: tuple[int, int]) -> Tensor:
    """out[pair] = masks[element], by an index table that loops make."""
    n, _, height, width = masks.shape
    mask_h, mask_w = mask_size
    index = torch.full((height * width, height, width), -1)
    for h, w, i, j in itertools.product(range(height), range(width), range(mask_h), range(mask_w)):
        y, x = h + i - (mask_h - 1) // 2, w + j - (mask_w - 1) // 2
        if 0 <= y < height and 0 <= x < width:
            source = ((i * mask_w + j) * height + h) * width + w
            if psa_type == "collect":
                index[y * width + x, h, w] = source
            else:
                index[h * width + w, y, x] = source
    padded = torch.cat([masks.reshape(n, -1), masks.new_zeros(n, 1)], 1)
    return padded[:, index]


def random_case(n: int, size: tuple[int, int], mask_size: tuple[int, int], seed: int = 0) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randn(n, mask_size[0] * mask_size[1], *size, generator=generator, dtype=torch.float64)
    return (masks.requires_grad_(),)


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("psa_type", TYPES)
    @pytest.mark.parametrize(
        ("size", "mask_size"),
        [((5, 4), (9, 7)), ((5, 4), (3, 3)), ((4, 6), (4, 2)), ((3, 3), (11, 13)), ((1, 35), (1, 40))],
    )
    def test_against_oracle(
        self,
        device: str,
        dtype: torch.dtype,
        psa_type: str,
        size: tuple[int, int],
        mask_size: tuple[int, int],
    ) -> None:
        assert_matches_oracle(
            lambda x: psa_mask(x, psa_type, mask_size),
            lambda x: oracle(x, psa_type, mask_size),
            random_case(2, size, mask_size),
            dtype=dtype,
            device=device,
            backward=True,
        )

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 2),
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        st.tuples(st.integers(1, 13), st.integers(1, 13)),
        st.sampled_from(TYPES),
    )
    def test_any_size(self, n: int, size: tuple[int, int], mask_size: tuple[int, int], psa_type: str) -> None:
        (masks,) = random_case(n, size, mask_size)
        ours, theirs = psa_mask(masks, psa_type, mask_size), oracle(masks, psa_type, mask_size)
        assert torch.equal(ours, theirs)
        grad = torch.randn_like(ours)
        assert torch.equal(
            torch.autograd.grad(ours, masks, grad)[0], torch.autograd.grad(theirs, masks, grad)[0]
        )

    def test_by_hand(self) -> None:
        """Two pixels, masks (left, self, right)."""
        masks = torch.tensor([[1.0, 4], [2, 5], [3, 6]]).reshape(1, 3, 1, 2)
        assert psa_mask(masks, "collect", (1, 3)).reshape(2, 2).tolist() == [[2, 4], [3, 5]]
        assert psa_mask(masks, "distribute", (1, 3)).reshape(2, 2).tolist() == [[2, 3], [4, 5]]

    @pytest.mark.parametrize("psa_type", TYPES)
    def test_the_default_mask_reaches_everywhere(self, psa_type: str) -> None:
        (masks,) = random_case(1, (3, 4), (5, 7))
        ours = psa_mask(masks, psa_type)
        assert torch.equal(ours, psa_mask(masks, psa_type, (5, 7)))
        assert (ours != 0).all()

    def test_collect_and_distribute_are_transposes(self) -> None:
        (masks,) = random_case(2, (4, 5), (5, 3))
        collected = psa_mask(masks, "collect", (5, 3)).flatten(2)
        assert torch.equal(collected.mT, psa_mask(masks, "distribute", (5, 3)).flatten(2))

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(0, 9, 4, 4), (2, 9, 0, 4), (2, 9, 4, 0)])
    def test_empty(self, device: str, shape: tuple[int, ...]) -> None:
        masks = torch.zeros(shape, device=device, requires_grad=True)
        out = psa_mask(masks, "collect", 3)
        assert out.shape == (shape[0], shape[2] * shape[3], *shape[2:])
        assert torch.autograd.grad(out.sum(), masks)[0].shape == shape


class TestLayer:
    def test_is_the_function(self) -> None:
        (masks,) = random_case(1, (4, 5), (3, 5))
        layer = PSAMask("distribute", (3, 5))
        assert torch.equal(layer(masks), psa_mask(masks, "distribute", (3, 5)))
        assert repr(layer) == "PSAMask(psa_type='distribute', mask_size=(3, 5))"
        assert PSAMask("collect", 3).mask_size == (3, 3)
        assert PSAMask("collect").mask_size is None


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        case = random_case(2, (3, 4), (3, 5))
        check_operator(
            lambda x: psa_mask(x, "collect", (3, 5)),
            case,
            op=OP,
            op_args=(*case, 3, 5, True),
            device=device,
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}],
        )

    def test_backward_operator(self) -> None:
        grad = torch.rand(2, 12, 3, 4, dtype=torch.float64, requires_grad=True)
        torch.library.opcheck(OP_BACKWARD, (grad, 3, 5, False))

    @pytest.mark.parametrize("psa_type", TYPES)
    def test_second_derivative(self, psa_type: str) -> None:
        assert torch.autograd.gradgradcheck(
            lambda x: psa_mask(x, psa_type, 3) ** 2, random_case(1, (2, 3), (3, 3))
        )

    @pytest.mark.parametrize("psa_type", TYPES)
    @pytest.mark.parametrize(("size", "mask_size"), [((7, 70), (5, 139)), ((33, 31), (65, 61))])
    def test_cuda(self, psa_type: str, size: tuple[int, int], mask_size: tuple[int, int]) -> None:
        case = random_case(2, size, mask_size)
        check_cpu_equals_cuda(lambda x: psa_mask(x, psa_type, mask_size), case)
        check_cuda_stream(lambda x: psa_mask(x, psa_type, mask_size), case)


class TestErrors:
    def test_messages(self) -> None:
        masks = torch.zeros(1, 9, 4, 4)
        with pytest.raises(AssertionError, match=r"psa_type must be one of .*, got 'gather'"):
            PSAMask("gather")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"mask_size must be positive, got \(0, 3\)"):
            PSAMask("collect", (0, 3))
        with pytest.raises(ValueError, match=r"mask_h \* mask_w = 3 \* 5 channels, got \(1, 9, 4, 4\)"):
            psa_mask(masks, "collect", (3, 5))
        with pytest.raises(ValueError, match=r"mask_h \* mask_w = 7 \* 7 channels, got \(1, 9, 4, 4\)"):
            psa_mask(masks, "collect")
        with pytest.raises(ValueError, match=r"input must have shape .*, got \(9, 4, 4\)"):
            psa_mask(masks[0], "collect", 3)
        with pytest.raises(TypeError, match=r"input must have a floating dtype, got torch\.int64"):
            psa_mask(masks.long(), "collect", 3)
