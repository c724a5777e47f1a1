"""multi_scale_deformable_attn and MultiScaleDeformableAttention."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn,
    multi_scale_deformable_attn_pytorch,
)
from cv_testing.emulator import emulated
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
    check_second_derivative_is_refused,
)

SHAPES = [(5, 7), (3, 4), (1, 2)]


def levels(shapes: list[tuple[int, int]]) -> tuple[Tensor, Tensor, int]:
    sizes = [h * w for h, w in shapes]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return torch.tensor(shapes).reshape(-1, 2), torch.tensor(starts, dtype=torch.int64), sum(sizes)


def make_inputs(
    n: int = 2,
    queries: int = 6,
    heads: int = 2,
    channels: int = 5,
    points: int = 3,
    shapes: list[tuple[int, int]] | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shapes = SHAPES if shapes is None else shapes
    rng = torch.Generator().manual_seed(seed)
    sizes, starts, keys = levels(shapes)
    value = torch.randn(n, keys, heads, channels, generator=rng, dtype=torch.float64)
    # Between pixels, up to two outside the map, and never on a kink of the interpolation, even in bfloat16.
    shape = (n, queries, heads, len(shapes), points, 2)
    extent = sizes.flip(-1)[:, None, :].double()
    whole = torch.floor(torch.rand(shape, generator=rng, dtype=torch.float64) * (extent + 3)) - 2
    inner = torch.rand(shape, generator=rng, dtype=torch.float64) * 0.6 + 0.2
    places = (whole + inner + 0.5) / extent
    weights = torch.rand(n, queries, heads, len(shapes), points, generator=rng, dtype=torch.float64)
    return value.requires_grad_(), sizes, starts, places.requires_grad_(), weights.requires_grad_()


def oracle(value: Tensor, sizes: Tensor, starts: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Equation 3 of the paper, one sample at a time, pixels as hat functions around their centres."""
    n, queries, heads, _, points, _ = places.shape
    out = []
    for b in range(n):
        for q in range(queries):
            for m in range(heads):
                total = value[b, :, m].sum(0) * 0
                for level, (height, width) in enumerate(sizes.tolist()):
                    start = int(starts[level])
                    image = value[b, start : start + height * width, m].reshape(height, width, -1)
                    for p in range(points):
                        x, y = places[b, q, m, level, p, 0] * width, places[b, q, m, level, p, 1] * height
                        hat_x = (1 - (torch.arange(width, dtype=x.dtype) + 0.5 - x).abs()).clamp(min=0)
                        hat_y = (1 - (torch.arange(height, dtype=y.dtype) + 0.5 - y).abs()).clamp(min=0)
                        sample = torch.einsum("y,x,yxc->c", hat_y, hat_x, image)
                        total = total + weights[b, q, m, level, p] * sample
                out.append(total)
    return torch.stack(out).reshape(n, queries, -1)


def bind(fn, sizes: Tensor, starts: Tensor):
    """A function of the three tensors that are differentiated."""
    return lambda v, p, w: fn(v, sizes.to(v.device), starts.to(v.device), p, w)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 5, 16, 40])
def test_is_what_the_paper_defines(channels, dtype, device):
    value, sizes, starts, places, weights = make_inputs(n=1, queries=4, channels=channels)
    # 9 samples, gradients of places times the width of a map
    assert_matches_oracle(
        bind(multi_scale_deformable_attn, sizes, starts),
        bind(oracle, sizes, starts),
        (value, places, weights),
        dtype=dtype,
        device=device,
        backward=True,
        scale=10.0 * math.sqrt(channels),
    )


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 2),
    queries=st.integers(0, 4),
    heads=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 8, 17, 33]),
    points=st.integers(1, 3),
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_random_shapes_agree_with_the_composed_form(n, queries, heads, channels, points, shapes, seed):
    value, sizes, starts, places, weights = make_inputs(n, queries, heads, channels, points, shapes, seed)
    out = multi_scale_deformable_attn(value, sizes, starts, places, weights)
    if out.numel() == 0:
        assert out.shape == (n, queries, heads * channels)
        return
    expected = multi_scale_deformable_attn_pytorch(value, sizes, places, weights)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for a, e in zip(
        torch.autograd.grad(out, (value, places, weights), grad),
        torch.autograd.grad(expected, (value, places, weights), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("device", DEVICES)
def test_at_pixel_centres_it_is_a_gather(device):
    height, width = 4, 6
    value = torch.randn(1, height * width, 1, 8, generator=torch.Generator().manual_seed(0)).to(device)
    sizes, starts, _ = levels([(height, width)])
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.stack(((xs + 0.5) / width, (ys + 0.5) / height), -1).reshape(1, -1, 1, 1, 1, 2).to(device)
    out = multi_scale_deformable_attn(
        value, sizes.to(device), starts.to(device), centres, torch.ones(centres.shape[:-1], device=device)
    )
    torch.testing.assert_close(out, value[:, :, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    value, sizes, starts, places, weights = make_inputs(
        n=1, queries=2, channels=3, points=2, shapes=SHAPES[:2]
    )
    check_operator(
        bind(multi_scale_deformable_attn, sizes, starts),
        (value, places, weights),
        op=torch.ops.cv.multi_scale_deform_attn.default,
        op_args=(value, sizes, starts, places, weights),
        device=device,
        dynamic_shapes=[{}, {1: torch.export.Dim("queries", min=1)}, {1: torch.export.Dim("queries", min=1)}],
    )


def test_the_backward_operator_passes_opcheck():
    value, sizes, starts, places, weights = (t.detach() for t in make_inputs(n=1, queries=2))
    grad = torch.randn(1, 2, 10, dtype=torch.float64)
    for wanted in ((True, False), (False, True)):
        results = torch.library.opcheck(
            torch.ops.cv.multi_scale_deform_attn_backward.default,
            (grad, value, sizes, starts, places, weights, *wanted, False),
        )
        assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("device", DEVICES)
def test_there_is_no_second_derivative(device):
    value, sizes, starts, places, weights = make_inputs(n=1, queries=2)
    fn = bind(multi_scale_deformable_attn, sizes, starts)
    check_second_derivative_is_refused(fn, (value, places, weights), device=device)


@pytest.mark.parametrize("channels", [8, 37])
def test_every_instruction_set_agrees(channels):
    value, sizes, starts, places, weights = make_inputs(channels=channels)
    check_every_cpu_isa(bind(multi_scale_deformable_attn, sizes, starts), (value, places, weights))


@pytest.mark.parametrize("channels", [1, 8, 37, 256])
def test_cuda_agrees(channels):
    value, sizes, starts, places, weights = make_inputs(channels=channels)
    fn = bind(multi_scale_deformable_attn, sizes, starts)
    check_cpu_equals_cuda(fn, (value, places, weights), scale=50.0)
    check_cuda_stream(fn, (value.float(), places.float(), weights.float()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_places_keep_their_precision_beside_a_value_of_half_type(dtype, device):
    value, sizes, starts, places, weights = make_inputs(shapes=[(50, 80)], channels=8)
    low = value.detach().to(device, dtype).requires_grad_()
    places, weights = (t.detach().to(device, torch.float32).requires_grad_() for t in (places, weights))
    sizes, starts = sizes.to(device), starts.to(device)
    out = multi_scale_deformable_attn(low, sizes, starts, places, weights)
    expected = multi_scale_deformable_attn(low.float(), sizes, starts, places, weights)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype), rtol=1.6e-2, atol=1e-3)
    grads = torch.autograd.grad(out.float().sum(), (low, places, weights))
    assert [g.dtype for g in grads] == [dtype, torch.float32, torch.float32]


@pytest.mark.parametrize("device", DEVICES)
def test_only_the_gradients_that_are_wanted(device):
    inputs = make_inputs()
    for index in (0, 3, 4):
        args = [t.detach().to(device) for t in inputs]
        args[index].requires_grad_()
        all_args = [t.detach().to(device).requires_grad_(t.is_floating_point()) for t in inputs]
        (one,) = torch.autograd.grad(multi_scale_deformable_attn(*args).sum(), args[index])
        (expected,) = torch.autograd.grad(multi_scale_deformable_attn(*all_args).sum(), all_args[index])
        torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_a_place_that_is_not_finite_or_far_away_reads_zero(bad, device):
    value, sizes, starts, places, weights = (t.detach().to(device) for t in make_inputs(queries=2))
    places[:, 1] = bad
    value.requires_grad_()
    places.requires_grad_()
    out = multi_scale_deformable_attn(value, sizes, starts, places, weights)
    assert torch.isfinite(out).all()
    assert (out[:, 1] == 0).all()
    for g in torch.autograd.grad(out.sum(), (value, places)):
        assert torch.isfinite(g).all()


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_without_weight_do_not_count(device):
    # NaN elsewhere in the maps does not reach a query that does not read it
    sizes, starts, keys = levels([(3, 3)])
    value = torch.full((1, keys, 1, 20), math.nan, device=device)
    value[:, 4] = 2.0
    places = torch.full((1, 1, 1, 1, 1, 2), 0.5, device=device)
    out = multi_scale_deformable_attn(
        value, sizes.to(device), starts.to(device), places, torch.ones(1, 1, 1, 1, 1, device=device)
    )
    assert (out == 2.0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_attention_that_is_not_finite_touches_no_pixel_outside(bad, device):
    # Times the weight 0 of a pixel outside the map it is NaN; that pixel's key is another map's, or none.
    sizes, starts = torch.tensor([[2, 2]], device=device), torch.tensor([5], device=device)
    value = torch.ones(1, 14, 1, 20, device=device, requires_grad=True)
    outside = torch.tensor([-0.6, 0.5, 1.6, 9.0], device=device)
    places = torch.cartesian_prod(outside, outside)[None, :, None, None, None]  # (1, 16 queries, 1, 1, 1, 2)
    weights = torch.full((1, 16, 1, 1, 1), bad, device=device)
    multi_scale_deformable_attn(value, sizes, starts, places, weights).sum().backward()
    touched = value.grad[0, :, 0].ne(0).any(-1)
    assert not touched[:5].any()
    assert not touched[9:].any()
    assert touched[5:9].all()  # by the query in the middle


def test_levels_outside_the_keys():
    value, sizes, starts, places, weights = make_inputs()
    for bad_sizes, bad_starts in (
        (sizes + 3, starts),
        (sizes, starts + 10**12),
        (sizes, starts - 1),
        (sizes * 2**40, starts),
        (-sizes, starts),
    ):
        if emulated():  # CUDA cannot raise without waiting for the device
            out = multi_scale_deformable_attn(value, bad_sizes, bad_starts, places, weights)
            assert out.isnan().all()
            continue
        with pytest.raises(RuntimeError, match="keys"):
            multi_scale_deformable_attn(value, bad_sizes, bad_starts, places, weights)


def test_a_level_without_pixels_gives_nothing():
    value, _, _, places, weights = make_inputs(shapes=[(2, 2), (3, 3)])
    sizes, starts = torch.tensor([[2, 2], [0, 3]]), torch.tensor([0, 4])
    only = weights.detach().clone()
    only[..., 1, :] = 0
    out = multi_scale_deformable_attn(value, sizes, starts, places, weights)
    full, begin, _ = levels([(2, 2), (3, 3)])
    torch.testing.assert_close(out, multi_scale_deformable_attn(value, full, begin, places, only))


def test_bad_arguments_are_named():
    value, sizes, starts, places, weights = make_inputs()
    cases = [
        (TypeError, "value must be a tensor", ([1], sizes, starts, places, weights)),
        (TypeError, "spatial_shapes must be int64", (value, sizes.float(), starts, places, weights)),
        (
            TypeError,
            "sampling_locations must have a floating",
            (value, sizes, starts, places.long(), weights),
        ),
        (ValueError, r"value must have shape \(N, keys", (value[0], sizes, starts, places, weights)),
        (ValueError, "sampling_locations must have shape", (value, sizes, starts, places[:, :, :1], weights)),
        (ValueError, "attention_weights must have shape", (value, sizes, starts, places, weights[:, :1])),
        (ValueError, "spatial_shapes must have shape", (value, sizes[:1], starts, places, weights)),
        (ValueError, "level_start_index must have shape", (value, sizes, starts[:1], places, weights)),
    ]
    for error, message, args in cases:
        with pytest.raises(error, match=message):
            multi_scale_deformable_attn(*args)


def test_apply_is_the_function():
    args = make_inputs()
    out = MultiScaleDeformableAttnFunction.apply(*args, 64)
    torch.testing.assert_close(out, multi_scale_deformable_attn(*args))
    int32 = (args[0], args[1].int(), args[2].int(), *args[3:])
    torch.testing.assert_close(MultiScaleDeformableAttnFunction.apply(*int32, 64), out)


# --- the layer -------------------------------------------------------------------------------------


def make_layer(**options) -> tuple[MultiScaleDeformableAttention, dict[str, Tensor]]:
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(
        embed_dims=16, num_heads=4, num_levels=3, num_points=2, **options
    ).eval()
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.1)
    torch.nn.init.normal_(layer.attention_weights.weight, std=0.5)
    sizes, starts, keys = levels(SHAPES)
    inputs = {
        "query": torch.randn(6, 2, 16),
        "value": torch.randn(keys, 2, 16),
        "query_pos": torch.randn(6, 2, 16),
        "reference_points": torch.rand(2, 6, 3, 2),
        "spatial_shapes": sizes,
        "level_start_index": starts,
    }
    return layer, inputs


@pytest.mark.parametrize("components", [2, 4])
def test_the_layer_is_its_formula(components):
    layer, x = make_layer()
    x["reference_points"] = torch.rand(2, 6, 3, components)
    mask = torch.zeros(2, x["value"].shape[0], dtype=torch.bool)
    mask[0, 3:9] = True
    identity = torch.randn(6, 2, 16)
    out = layer(**x, identity=identity, key_padding_mask=mask)

    query = (x["query"] + x["query_pos"]).transpose(0, 1)
    value = layer.value_proj(x["value"].transpose(0, 1)) * ~mask[..., None]
    offsets = layer.sampling_offsets(query).view(2, 6, 4, 3, 2, 2)
    weights = layer.attention_weights(query).view(2, 6, 4, 6).softmax(-1).view(2, 6, 4, 3, 2)
    places = torch.zeros_like(offsets)
    for level, (height, width) in enumerate(SHAPES):
        reference = x["reference_points"][:, :, level]
        scale = (
            torch.tensor([1 / width, 1 / height])[None, None] if components == 2 else reference[..., 2:] / 4
        )
        places[:, :, :, level] = (reference[..., :2] + 0 * scale)[:, :, None, None] + offsets[
            :, :, :, level
        ] * scale[:, :, None, None]
    attended = multi_scale_deformable_attn_pytorch(
        value.reshape(2, -1, 4, 4), x["spatial_shapes"], places, weights
    )
    torch.testing.assert_close(out, layer.output_proj(attended).transpose(0, 1) + identity)


def test_batch_first_and_defaults():
    layer, x = make_layer()
    expected = layer(**x)
    layer.batch_first = True
    turned = {k: v.transpose(0, 1) if k in ("query", "value", "query_pos") else v for k, v in x.items()}
    torch.testing.assert_close(layer(**turned).transpose(0, 1), expected)
    layer.batch_first = False
    # without value and identity, both are the query
    keys = int(x["spatial_shapes"].prod(1).sum())
    own = torch.randn(keys, 2, 16)
    rest = {"spatial_shapes": x["spatial_shapes"], "level_start_index": x["level_start_index"]}
    rest["reference_points"] = torch.rand(2, keys, 3, 2)
    torch.testing.assert_close(layer(own, **rest), layer(own, own, own, own, **rest))


def test_the_old_name_of_identity():
    layer, x = make_layer()
    with pytest.warns(DeprecationWarning, match="identity"):
        out = layer(**x, residual=torch.zeros(6, 2, 16))
    torch.testing.assert_close(out, layer(**x, identity=torch.zeros(6, 2, 16)))


def test_init_weights():
    layer = MultiScaleDeformableAttention(embed_dims=32, num_heads=8, num_levels=2, num_points=3)
    zero = (layer.sampling_offsets.weight, layer.attention_weights.weight, layer.attention_weights.bias)
    assert all((t == 0).all() for t in (*zero, layer.value_proj.bias, layer.output_proj.bias))
    offsets = layer.sampling_offsets.bias.detach().view(8, 2, 3, 2)
    torch.testing.assert_close(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0]]))
    torch.testing.assert_close(offsets[1, 1], torch.tensor([[1.0, 1], [2, 2], [3, 3]]))
    torch.testing.assert_close(offsets[6, 0, 0], torch.tensor([0.0, -1.0]), atol=1e-6, rtol=0)
    assert layer.is_init


def test_names_of_checkpoints_and_the_registry():
    from cv.cnn.bricks.registry import ATTENTION
    from cv.cnn.bricks.transformer import build_attention

    names = {f"{c}.{p}" for c in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
             for p in ("weight", "bias")}  # fmt: skip
    assert set(MultiScaleDeformableAttention(16, 4).state_dict()) == names
    assert ATTENTION.get("MultiScaleDeformableAttention") is MultiScaleDeformableAttention
    assert build_attention({"type": "MultiScaleDeformableAttention", "embed_dims": 16}).embed_dims == 16


def test_the_layer_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="embed_dims must be divisible by num_heads, got 10 and 4"):
        MultiScaleDeformableAttention(embed_dims=10, num_heads=4)
    for name in ("num_points", "embed_dims"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            MultiScaleDeformableAttention(**{name: 0})
    layer, x = make_layer()
    with pytest.raises(ValueError, match="must be given"):
        layer(x["query"])
    for name in ("identity", "query_pos", "key_padding_mask"):
        with pytest.raises(TypeError, match=f"{name} must be a tensor, got list"):
            layer(**(x | {name: [1.0]}))
    with pytest.raises(ValueError, match="but value has 40"):
        layer(**(x | {"value": x["value"][:40]}))
    with pytest.raises(ValueError, match="last dimension of reference_points must be 2 or 4"):
        layer(**(x | {"reference_points": torch.rand(2, 6, 3, 3)}))
    with pytest.raises(ValueError, match="reference_points must have shape"):
        layer(**(x | {"reference_points": torch.rand(2, 5, 3, 2)}))


def test_dropout_acts_before_the_shortcut():
    layer, x = make_layer(dropout=1.0)
    torch.testing.assert_close(layer.train()(**x), x["query"])


def test_autocast_keeps_places_in_float32():
    layer, x = make_layer()
    expected = layer(**x)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(**x)
    torch.testing.assert_close(out.float(), expected, rtol=5e-2, atol=5e-2)
