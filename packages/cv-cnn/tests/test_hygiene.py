"""What importing cv.cnn does not do."""

import subprocess
import sys

import pytest

import cv.cnn

PROGRAM = """
import sys, warnings
warnings.simplefilter("error")
import torch
before = set(sys.modules)
import cv.cnn, cv.cnn.checkpoint
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - {"cv"} - set(sys.stdlib_module_names)))
print(torch.cuda.is_initialized(), "cv.ops" in sys.modules, "safetensors" in sys.modules)
"""


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_import():
    result = run(PROGRAM)
    third_party, others = result.stdout.splitlines()
    assert set(eval(third_party)) <= {"yaml", "_yaml"}
    assert others == "False False False"
    assert result.stderr == ""


def test_exports():
    assert len(set(cv.cnn.__all__)) == len(cv.cnn.__all__)
    for name in cv.cnn.__all__:
        assert (getattr(cv.cnn, name).__doc__ or "").strip(), name


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("cv.cnn.bricks", ["ConvModule", "build_norm_layer", "NORM_LAYERS", "DropPath"]),
        (
            "cv.cnn.bricks.registry",
            ["ATTENTION", "DROPOUT_LAYERS", "FEEDFORWARD_NETWORK", "POSITIONAL_ENCODING"],
        ),
        ("cv.cnn.bricks.registry", ["TRANSFORMER_LAYER", "TRANSFORMER_LAYER_SEQUENCE", "PLUGIN_LAYERS"]),
        ("cv.cnn.bricks.transformer", ["FFN", "build_dropout", "build_positional_encoding"]),
        ("cv.cnn.bricks.drop", ["DropPath", "Dropout", "build_dropout"]),
        ("cv.cnn.bricks.wrappers", ["NewEmptyTensorOp", "obsolete_torch_version"]),
        ("cv.cnn.bricks.conv_module", ["ConvModule"]),
        ("cv.cnn.bricks.non_local", ["_NonLocalNd", "NonLocal2d"]),
        ("cv.cnn.resnet", ["BasicBlock", "Bottleneck", "conv3x3", "make_res_layer"]),
        ("cv.cnn.vgg", ["make_vgg_layer", "conv3x3"]),
        ("cv.cnn.builder", ["MODELS", "build_model_from_cfg"]),
        (
            "cv.cnn.utils",
            ["revert_sync_batchnorm", "get_model_complexity_info", "INITIALIZERS"],
        ),
        (
            "cv.cnn.utils.weight_init",
            ["trunc_normal_", "update_init_info", "initialize"],
        ),
        ("cv.cnn.utils.flops_counter", ["flops_to_string", "params_to_string"]),
        ("cv.cnn.module", ["BaseModule", "Sequential", "ModuleList", "ModuleDict"]),
        ("cv.cnn.checkpoint", ["_load_checkpoint", "_load_checkpoint_with_prefix", "CheckpointLoader"]),
        ("cv.cnn.module_wrapper", ["MODULE_WRAPPERS", "is_module_wrapper"]),
    ],
)
def test_paths(path, names):
    module = __import__(path, fromlist=names)
    for name in names:
        assert hasattr(module, name)
