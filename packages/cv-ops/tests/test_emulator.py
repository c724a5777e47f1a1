"""The emulator of CUDA (tools/emulator): right kernels run, and what is wrong with others is reported."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TOOL = Path(__file__).parents[1] / "tools" / "emulate.py"
KERNELS = Path(__file__).parent / "emulator_kernels"

pytestmark = [
    pytest.mark.skipif(not TOOL.exists(), reason="the tools of the repository are not here"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(
        shutil.which("ninja", path=str(Path(sys.executable).parent)) is None
        and shutil.which("ninja") is None,
        reason="needs ninja",
    ),
]


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent / "emulator"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


class Emulated:
    """The compiled test kernels."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.cv_ops_run_kernel.restype = ctypes.c_char_p

    def __call__(
        self, kernel: str, out: np.ndarray, *, grid: Any = 1, block: Any = 32, given: np.ndarray | None = None
    ) -> str:
        """Launch; the emulator's complaint, or an empty string."""
        shape = [*dimensions(grid), *dimensions(block)]
        message: bytes = self.library.cv_ops_run_kernel(
            kernel.encode(),
            (ctypes.c_uint * 6)(*shape),
            pointer(out if given is None else given),
            pointer(out),
        )
        return message.decode()

    def order(self, name: str) -> None:
        self.library.cv_ops_emulator_order(name.encode())


def dimensions(size: Any) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return (*sizes, *(1,) * (3 - len(sizes)))


def pointer(array: np.ndarray) -> Any:
    assert array.dtype == np.float32
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    tool = load("emulate", TOOL)
    return Emulated(tool.build(tmp_path_factory.mktemp("emulator"), kernels=KERNELS))


@pytest.fixture(params=["ascending", "descending", "random:3", "random:4"])
def order(run: Emulated, request: pytest.FixtureRequest) -> Iterator[str]:
    run.order(request.param)
    yield request.param
    run.order("ascending")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.usefixtures("order")
class TestRightKernels:
    def test_block_sum(self, run: Emulated) -> None:
        given = np.arange(3 * 256, dtype=np.float32).reshape(3, 256)
        out = zeros(3)
        assert run("block_sum", out, grid=3, block=256, given=given) == ""
        assert out.tolist() == given.sum(1).tolist()

    def test_warp_functions_in_groups(self, run: Emulated) -> None:
        out = zeros(64, 6)
        assert run("groups_of_eight", out, block=64) == ""
        for thread, row in enumerate(out.tolist()):
            first = thread - thread % 8
            before, after = max(thread - 1, first), min(thread + 1, first + 7)
            assert row == [first, before, after, 4, 1, 0]

    def test_the_barrier_does_not_wait_for_threads_that_returned(self, run: Emulated) -> None:
        out = zeros(64)
        assert run("some_threads_return", out, block=64) == ""
        assert out.tolist() == [3.0] * 40 + [0.0] * 24

    def test_votes_of_a_block(self, run: Emulated) -> None:
        out = zeros(64)
        assert run("barrier_votes", out, block=64) == ""
        assert set(out.tolist()) == {170.0}

    def test_places_in_three_dimensions(self, run: Emulated) -> None:
        out = zeros(24, 30)
        assert run("places", out, grid=(4, 3, 2), block=(5, 3, 2)) == ""
        assert out.tolist() == [[1000.0 * b + t for t in range(30)] for b in range(24)]


class TestOrders:
    def test_an_order_dependent_sum_shows_it(self, run: Emulated) -> None:
        given = np.random.default_rng(0).standard_normal(64 * 32).astype(np.float32)
        sums = {}
        for name in ("ascending", "descending", "random:1", "random:2"):
            run.order(name)
            out = zeros(1)
            assert run("atomic_sum", out, grid=64, given=given) == ""
            sums[name] = float(out[0])
        run.order("ascending")
        assert len(set(sums.values())) > 2, sums
        assert sums["ascending"] == float(np.add.accumulate(given)[-1])

    def test_the_same_seed_gives_the_same_order(self, run: Emulated) -> None:
        given = np.random.default_rng(0).standard_normal(64 * 32).astype(np.float32)
        results = []
        for _ in range(2):
            run.order("random:5")
            out = zeros(1)
            run("atomic_sum", out, grid=64, given=given)
            results.append(float(out[0]))
        run.order("ascending")
        assert results[0] == results[1]


WRONG = {
    "missing_barrier": (64, r"race: (read|write) .* not ordered with a (write|read) by thread"),
    "shuffle_for_a_barrier": (32, r"race: (read|write)"),
    "missing_second_barrier": (64, r"race: (read|write)"),
    "atomic_and_plain": (
        64,
        r"race: (atomic operation|write) .* not ordered with a (write|atomic operation)",
    ),
    "divergent_barrier": (64, r"at different barriers: .*__syncthreads .*__syncthreads_or"),
    "lane_never_arrives": (
        32,
        r"lane 3 of the mask never arrived: thread \(3, 0, 0\) waits at __syncthreads",
    ),
    "divergent_calls": (32, r"different calls: .*(__shfl_sync.*__ballot_sync|__ballot_sync.*__shfl_sync)"),
    "reads_a_lane_that_returned": (32, r"reads lane 7 in __shfl_sync .*thread \(7, 0, 0\) has returned"),
    "mask_without_the_caller": (32, r"mask 65535, which does not hold the calling lane"),
    "shared_index": (32, r"thread \((16|31|\d+), 0, 0\): index outside its array at kernels\.cu:\d+"),
    "misaligned": (1, r"misaligned or null address at kernels\.cu:\d+"),
    "overflow": (64, r"integer overflow at kernels\.cu:\d+"),
    "too_much_shared": (32, r"more than 48 KiB of shared memory, with b of 32768 bytes"),
}


@pytest.mark.usefixtures("order")
class TestWrongKernels:
    @pytest.mark.parametrize("kernel", WRONG)
    def test_is_reported_with_kernel_and_block(self, run: Emulated, kernel: str) -> None:
        block, text = WRONG[kernel]
        message = run(kernel, zeros(64), block=block, given=zeros(64))
        assert message.startswith(f"{kernel}, block (0, 0, 0): "), message
        assert re.search(text, message), message

    def test_blocks_that_share_a_cell(self, run: Emulated) -> None:
        message = run("blocks_share_a_cell", zeros(64), grid=3, block=64)
        assert "race: write" in message
        assert "by a thread of block number" in message

    def test_after_an_error_the_next_launch_is_whole(self, run: Emulated) -> None:
        assert run("lane_never_arrives", zeros(64)) != ""
        given, out = np.ones((1, 256), np.float32), zeros(1)
        assert run("block_sum", out, block=256, given=given) == ""
        assert out[0] == 256

    def test_shared_memory_is_not_zero_at_first(self, run: Emulated) -> None:
        out = zeros(32)
        assert run("uninitialised_shared", out) == ""
        assert np.isnan(out).all()


class TestLaunches:
    @pytest.mark.parametrize(
        ("grid", "block", "text"),
        [
            (0, 32, "an empty grid or block"),
            (1, 0, "an empty grid or block"),
            (1 << 31, 1, "a grid that is too large"),
            ((1, 65536), 1, "a grid that is too large"),
            ((1, 1, 65536), 1, "a grid that is too large"),
            (1, 1025, "a block that is too large"),
            (1, (32, 33), "a block that is too large"),
            (1, (1, 1, 65), "a block that is too large"),
        ],
    )
    def test_limits(self, run: Emulated, grid: Any, block: Any, text: str) -> None:
        assert text in run("nothing", zeros(1), grid=grid, block=block)

    def test_the_largest_are_allowed(self, run: Emulated) -> None:
        assert run("nothing", zeros(1), grid=(1, 65535), block=1) == ""
        assert run("nothing", zeros(1), block=(32, 32)) == ""

    def test_another_stream(self, run: Emulated) -> None:
        assert "another stream than torch's current one" in run("another_stream", zeros(1))

    def test_a_copy_arrives_with_the_synchronisation(self, run: Emulated) -> None:
        assert run.library.cv_ops_copy_arrives() == 2


def test_address_sanitizer_sees_an_access_outside_a_tensor(tmp_path: Path) -> None:
    tool = load("emulate", TOOL)
    environment = tool.sanitizer_environment()
    if not all(Path(p).is_absolute() for p in environment["LD_PRELOAD"].split()):
        pytest.skip("gcc has no libasan.so")
    library = tool.build(tmp_path, kernels=KERNELS, sanitize=True)
    code = (
        "import ctypes, sys\n"
        "c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p\n"
        "given, out = c.malloc(4 * int(sys.argv[2])), c.malloc(4 * 64)\n"
        "shape = (ctypes.c_uint * 6)(1, 1, 1, 64, 1, 1)\n"
        "run = ctypes.CDLL(sys.argv[1]).cv_ops_run_kernel; run.restype = ctypes.c_char_p\n"
        "print(run(b'outside_the_tensor', shape, ctypes.c_void_p(given), ctypes.c_void_p(out)))\n"
    )
    for size, fails in ((64, False), (63, True)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(library), str(size)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("heap-buffer-overflow" in done.stderr) == fails, done.stderr
        assert (done.returncode != 0) == fails


class TestTranslation:
    def translate(self, source: str) -> str:
        load("emulate", TOOL)
        result: str = sys.modules["translate"].translate(source)
        return result

    def test_launch(self) -> None:
        text = self.translate("  ns::kernel<T, 4>\n      <<<dim3(a, b), f<2>(n), 0, s>>>(x, g(y, z));")
        head, _, arguments = text.partition("{ ns::kernel<T, 4>(simt_args...); }")
        assert '::simt::launch("ns::kernel<T, 4>", __FILE__, __LINE__, dim3(a, b), f<2>(n), 0, s, ' in head
        assert arguments == ", x, g(y, z))\n;"

    @pytest.mark.parametrize("callee", ["k", "k<decltype(m)::value>", "k<(1 > 0), A<B<C>>>", "a::b<1>::k<2>"])
    def test_names_of_kernels(self, callee: str) -> None:
        text = self.translate(f"else {callee}<<<1, 2>>>();")
        assert f"{{ {callee}(simt_args...); }});" in text
        assert text.startswith("else ::simt::launch(")
        assert "1, 2, 0, 0, " in text

    def test_what_is_not_a_launch_stays(self) -> None:
        source = 'a << b; // k<<<1, 2>>>(x)\n/* k<<<3 */ f("<<<");\n'
        assert self.translate(source) == source

    def test_lines_stay_where_they_are(self) -> None:
        source = "k<<<\n 1,\n 2>>>(\n a,\n b);\n__shared__\n  int x;\nend"
        assert self.translate(source).split("\n").index("end") == source.split("\n").index("end")

    def test_shared(self) -> None:
        assert self.translate("__shared__ Box<A> rows[N][2 * (M + 1)];") == (
            'auto& rows = ::simt::shared<Box<A>[N][2 * (M + 1)]>("rows", [] {});'
        )
        assert self.translate("__shared__ Word x;") == 'auto& x = ::simt::shared<Word>("x", [] {});'

    @pytest.mark.parametrize(
        "source", ["__shared__ int a, b;", "extern __shared__ int a[];", "<<<1, 2>>>(x);", "k<<<1, 2>>>;"]
    )
    def test_what_it_does_not_know_is_an_error(self, source: str) -> None:
        load("emulate", TOOL)
        with pytest.raises(sys.modules["translate"].TranslationError):
            self.translate(source)
