"""cv.cnn: what ConvModule costs over bare layers, building a network from a config, and importing.

The peers are plain torch: ``nn.Sequential`` of the same layers, and a ResNet-50 written out by hand that is
initialised as torchvision's.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from harness import Report, arguments, caching_environment
from torch import nn

import cv.cnn as cnn

BLOCKS = (3, 4, 6, 3)


def main() -> None:
    """Run all cases and write the report."""
    args = arguments(__doc__)
    torch.set_num_threads(args.threads)
    report = Report("cnn", threads=args.threads)
    with torch.no_grad():
        eager(report)
        compiled(report)
    building(report)
    imports(report)
    report.write(args.out)


def conv_module(channels: int) -> tuple[nn.Module, nn.Module]:
    """The block, and the same layers bare."""
    block = cnn.ConvModule(channels, channels, 3, padding=1, norm_cfg={"type": "BN"}).eval()
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    bare = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)).eval()
    return block, bare


def eager(report: Report) -> None:
    """The block's own cost shows with layers that do nothing; then real layers."""
    block, bare = conv_module(4)
    for name in ("conv", "bn", "activate"):
        block._modules[name] = nn.Identity()
    empty = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity())
    x = torch.randn(1, 4, 8, 8)
    # In processor time: the difference is far below what a busy machine adds to the clock.
    samples: dict[str, list[float]] = {"cv": [], "nn.Sequential": []}
    for _ in range(21):
        for name, module in zip(samples, (block, empty), strict=True):
            start = time.process_time()
            for _ in range(5000):
                module(x)
            samples[name].append((time.process_time() - start) / 5000)
    times = {name: statistics.median(values) for name, values in samples.items()}
    report.add("ConvModule of three identities, eager, processor time", times)
    print(f"  ConvModule adds {1e6 * (times['cv'] - times['nn.Sequential']):+.2f} us a call")
    for channels, size in ((4, 8), (64, 56)):
        block, bare = conv_module(channels)
        x = torch.randn(1, channels, size, size)
        calls = {"cv": lambda b=block, x=x: b(x), "nn.Sequential": lambda b=bare, x=x: b(x)}
        report.compare(f"ConvModule (1, {channels}, {size}, {size}), eager", calls, seconds=3)


class HandMadeBlock(nn.Module):
    """The same block as one writes it without a library."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` to the same shape."""
        return self.relu(self.bn(self.conv(x)))


def compiled(report: Report) -> None:
    """The same under torch.compile: one block as the whole model, and blocks within a model.

    As the whole model ``nn.Sequential`` has an advantage that no class outside of torch can have: dynamo
    traces ``__call__`` of torch's own classes and calls that of others (`HandMadeBlock` shows it).
    """
    for channels, size, blocks in ((4, 8, 1), (4, 8, 8), (64, 56, 1)):

        def models(channels: int = channels, blocks: int = blocks) -> dict[str, nn.Module]:
            rows: dict[str, list[nn.Module]] = {"cv": [], "nn.Sequential": [], "by hand": []}
            for _ in range(blocks):
                rows["cv"].append(conv_module(channels)[0])
                rows["nn.Sequential"].append(conv_module(channels)[1])
                rows["by hand"].append(HandMadeBlock(channels).eval())
            return {name: row[0] if blocks == 1 else nn.Sequential(*row) for name, row in rows.items()}

        torch.compiler.reset()
        x = torch.randn(1, channels, size, size)
        # Two of each, in mirrored order: what is compiled first is slower by some microseconds.
        both = [*models().items(), *reversed(models().items())]
        times = fastest([(name, torch.compile(model, fullgraph=True)) for name, model in both], x)
        rows = f"{blocks} ConvModules" if blocks > 1 else "ConvModule"
        report.add(f"{rows} (1, {channels}, {size}, {size}), compiled, processor time", times)
        print(f"  {1e6 * (times['cv'] - times['nn.Sequential']) / blocks:+.2f} us a block to nn.Sequential")


def fastest(instances: list[tuple[str, nn.Module]], x: torch.Tensor) -> dict[str, float]:
    """Of each name the mean over its instances of their fastest call, in processor time.

    They take turns in an order that changes, because a call after one of the same kind finds more in the
    processor's caches.
    """
    best = [float("inf")] * len(instances)
    for _, model in instances:
        for _ in range(20):
            model(x)
    turns = list(range(len(instances)))
    shuffle = random.Random(0).shuffle
    for _ in range(200):
        shuffle(turns)
        for index in turns:
            model = instances[index][1]
            start = time.thread_time()
            for _ in range(10):
                model(x)
            best[index] = min(best[index], (time.thread_time() - start) / 10)
    of_name: dict[str, list[float]] = {name: [] for name, _ in instances}
    for (name, _), seconds in zip(instances, best, strict=True):
        of_name[name].append(seconds)
    return {name: statistics.mean(values) for name, values in of_name.items()}


class HandMadeBottleneck(nn.Module):
    """As one writes it without a library."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != width * 4:
            shortcut = nn.Conv2d(channels, width * 4, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width * 4))


class HandMadeResNet50(nn.Module):
    """Stem and stages, Kaiming for convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, count in enumerate(BLOCKS):
            width, blocks = 64 * 2**stage, []
            for index in range(count):
                blocks.append(HandMadeBottleneck(channels, width, 2 if stage and not index else 1))
                channels = width * 4
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 1)
                nn.init.constant_(module.bias, 0)


def building(report: Report) -> None:
    """A ResNet-50: as built, with the initialisation, and without the cost of filling memory."""

    def initialised() -> nn.Module:
        model = cnn.MODELS.build({"type": "ResNet", "depth": 50})
        model.init_weights()
        return model

    calls = {"cv": initialised, "by hand": HandMadeResNet50}
    report.compare("build and initialise ResNet-50 from a config", calls, seconds=6)

    def on_meta(make: object) -> None:
        with torch.device("meta"):
            make()  # type: ignore[operator]

    calls = {
        "cv": lambda: on_meta(lambda: cnn.MODELS.build({"type": "ResNet", "depth": 50})),
        "by hand": lambda: on_meta(HandMadeResNet50),
    }
    report.compare("build ResNet-50 without memory (meta device)", calls, seconds=3)


def imports(report: Report) -> None:
    """Seconds that ``import cv.cnn`` adds to ``import torch``, in fresh processes with byte code cached."""
    with tempfile.TemporaryDirectory() as cache:
        environment = caching_environment(cache)
        clock = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
        after_torch = "import torch; " + clock.format("cv.cnn")
        samples: dict[str, list[float]] = {"cv.cnn, after torch": [], "torch": []}
        for attempt in range(8):
            for name, program in zip(samples, (after_torch, clock.format("torch")), strict=True):
                out = subprocess.run(
                    [sys.executable, "-c", program],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                if attempt:  # the first fills the cache
                    samples[name].append(float(out.stdout))
        report.add("import", {name: statistics.median(times) for name, times in samples.items()})


if __name__ == "__main__":
    main()
