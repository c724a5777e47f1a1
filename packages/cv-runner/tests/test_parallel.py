"""cv.parallel on the CPU."""

import pytest
import torch
from torch import nn

from cv.parallel import (
    MODULE_WRAPPERS,
    DataContainer,
    MMDataParallel,
    collate,
    is_module_wrapper,
    scatter,
    scatter_kwargs,
)
from cv.parallel.registry import unwrap


class TestDataContainer:
    def test_members(self):
        container = DataContainer(torch.ones(2, 3), stack=True, padding_value=7, pad_dims=1)
        assert container.datatype == "torch.FloatTensor"
        assert (container.stack, container.padding_value, container.pad_dims) == (True, 7, 1)
        assert container.size() == (2, 3)
        assert container.size(0) == 2
        assert container.dim() == 2
        assert len(container) == 2
        assert repr(DataContainer([1])) == "DataContainer([1])"
        assert DataContainer({"a": 1}).datatype is dict

    def test_only_tensors_have_sizes(self):
        with pytest.raises(AttributeError, match="has no attribute size for type <class 'list'>"):
            DataContainer([1]).size()

    def test_pad_dims(self):
        with pytest.raises(AssertionError, match="pad_dims must be None, 1, 2 or 3, got 4"):
            DataContainer(1, pad_dims=4)


class TestCollate:
    def test_stacks_and_pads(self):
        shapes = [(3, 4, 5), (3, 6, 2), (3, 1, 1)]
        batch = [{"img": DataContainer(torch.ones(s), stack=True, padding_value=-1)} for s in shapes]
        out = collate(batch, samples_per_gpu=2)["img"]
        assert [tuple(t.shape) for t in out.data] == [(2, 3, 6, 5), (1, 3, 1, 1)]
        assert (out.data[0][0, :, :4, :5] == 1).all()
        assert (out.data[0][0, :, 4:] == -1).all()
        assert (out.data[0][1, :, :, 2:] == -1).all()

    def test_lists_and_meta(self):
        batch = [
            {
                "boxes": DataContainer(torch.zeros(n, 4)),
                "meta": DataContainer({"n": n}, cpu_only=True),
                "label": n,
                "name": f"image {n}",
            }
            for n in (1, 2, 3)
        ]
        out = collate(batch, samples_per_gpu=2)
        assert [[len(t) for t in chunk] for chunk in out["boxes"].data] == [[1, 2], [3]]
        assert out["meta"].data == [[{"n": 1}, {"n": 2}], [{"n": 3}]]
        assert out["meta"].cpu_only
        assert torch.equal(out["label"], torch.tensor([1, 2, 3]))
        assert out["name"] == ["image 1", "image 2", "image 3"]

    def test_sequences(self):
        out = collate([(torch.zeros(2), 1), (torch.ones(2), 2)])
        assert torch.equal(out[0], torch.tensor([[0.0, 0], [1, 1]]))
        assert torch.equal(out[1], torch.tensor([1, 2]))

    def test_without_padding(self):
        batch = [DataContainer(torch.ones(2), stack=True, pad_dims=None) for _ in range(3)]
        assert collate(batch, 3).data[0].shape == (3, 2)

    def test_errors(self):
        with pytest.raises(TypeError, match="batch must be a sequence of samples, got int"):
            collate(3)
        with pytest.raises(ValueError, match="at least one sample"):
            collate([])
        with pytest.raises(AssertionError, match="stack=True must hold a tensor, got list"):
            collate([DataContainer([1], stack=True)])
        with pytest.raises(AssertionError, match="may differ in the last 2 dimensions only"):
            collate([DataContainer(torch.ones(s, 2, 2), stack=True) for s in (1, 3)], 2)


class TestScatter:
    def test_to_the_cpu(self):
        inputs = {
            "img": DataContainer([torch.ones(2, 3)], stack=True),
            "boxes": DataContainer([[torch.zeros(1, 4), torch.zeros(2, 4)]]),
            "meta": DataContainer([["a", "b"]], cpu_only=True),
            "plain": torch.ones(2),
            "flag": True,
            "nested": [torch.zeros(1), (torch.ones(1), None)],
        }
        (out,) = scatter(inputs, [-1])
        assert torch.equal(out["img"], torch.ones(2, 3))
        assert [len(b) for b in out["boxes"]] == [1, 2]
        assert out["meta"] == ["a", "b"]
        assert torch.equal(out["plain"], torch.ones(2))
        assert out["flag"] is True
        assert out["nested"][1][1] is None

    def test_kwargs_are_filled_up(self):
        inputs, kwargs = scatter_kwargs((torch.ones(2),), {}, [-1])
        assert len(inputs) == len(kwargs) == 1
        assert kwargs[0] == {}
        inputs, kwargs = scatter_kwargs((), {}, [-1])
        assert inputs == ((),)
        assert kwargs == ({},)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, img, meta=None, return_loss=True):
        return self.layer(img), meta, return_loss

    def train_step(self, data, optimizer):
        return self(**data), optimizer

    def val_step(self, data, optimizer):
        return self(**data), None


@pytest.mark.parametrize("device_ids", [[-1], None])
def test_data_parallel_on_the_cpu(device_ids):
    model = MMDataParallel(Model(), device_ids=device_ids)
    data = {
        "img": DataContainer([torch.ones(2, 3)], stack=True),
        "meta": DataContainer([["a", "b"]], cpu_only=True),
    }
    out, meta, flag = model(return_loss=False, **data)
    assert (out.shape, meta, flag) == ((2, 1), ["a", "b"], False)
    (out, meta, _), optimizer = model.train_step(data, "optimizer")
    assert (out.shape, meta, optimizer) == ((2, 1), ["a", "b"], "optimizer")
    assert model.val_step(data, None)[0][1] == ["a", "b"]
    assert list(model.state_dict()) == ["module.layer.weight", "module.layer.bias"]


def test_wrappers():
    model = Model()
    wrapped = MMDataParallel(nn.DataParallel(model))
    assert is_module_wrapper(wrapped)
    assert not is_module_wrapper(model)
    assert unwrap(wrapped) is model

    @MODULE_WRAPPERS.register_module()
    class Own(nn.Module):
        pass

    try:
        assert is_module_wrapper(Own())
    finally:
        MODULE_WRAPPERS.module_dict.pop("Own")
