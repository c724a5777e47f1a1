"""Where published weights are, by the names that configs use.

The eight hexadecimal digits in a file name are the first of its sha256, which downloads are checked against.
"""

from __future__ import annotations

__all__ = ["MMCLS_FILES", "OPENMMLAB_FILES", "OPENMMLAB_RENAMED", "TORCHVISION_BASE", "TORCHVISION_FILES"]

TORCHVISION_BASE = "https://download.pytorch.org/models/"

# Name in torchvision.models -> file. Plain names are the first published weights (IMAGENET1K_V1), which
# code for mmcv 1.x was tuned with.
TORCHVISION_FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "densenet161": "densenet161-8d451a50.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "densenet201": "densenet201-c1103571.pth",
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "mobilenet_v3_large": "mobilenet_v3_large-8738ca79.pth",
    "mobilenet_v3_small": "mobilenet_v3_small-047dcff4.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet50.imagenet1k_v2": "resnet50-11ad3fa6.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet101.imagenet1k_v2": "resnet101-cd907fc2.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "resnet152.imagenet1k_v2": "resnet152-f82ba261.pth",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587.pth",
    "resnext101_32x8d": "resnext101_32x8d-8ba56ff5.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "wide_resnet50_2": "wide_resnet50_2-95faca4d.pth",
    "wide_resnet101_2": "wide_resnet101_2-32ee1156.pth",
}

# Name behind open-mmlab:// -> path below the host, which a mirror keeps.
OPENMMLAB_FILES = {
    name: f"pretrain/third_party/{file}"
    for name, file in {
        "vgg16_caffe": "vgg16_caffe-292e1171.pth",
        "detectron/resnet50_caffe": "resnet50_caffe-788b5fa3.pth",
        "detectron2/resnet50_caffe": "resnet50_msra-5891d200.pth",
        "detectron/resnet101_caffe": "resnet101_caffe-3ad79236.pth",
        "detectron2/resnet101_caffe": "resnet101_msra-6cc46731.pth",
        "detectron2/resnext101_32x8d": "resnext101_32x8d-1516f1aa.pth",
        "resnext50_32x4d": "resnext50-32x4d-0ab1a123.pth",
        "resnext101_32x4d": "resnext101_32x4d-a5af3160.pth",
        "resnext101_64x4d": "resnext101_64x4d-ee2c6f71.pth",
        "contrib/resnet50_gn": "resnet50_gn_thangvubk-ad1730dd.pth",
        "detectron/resnet50_gn": "resnet50_gn-9186a21c.pth",
        "detectron/resnet101_gn": "resnet101_gn-cac0ab98.pth",
        "jhu/resnet50_gn_ws": "resnet50_gn_ws-15beedd8.pth",
        "jhu/resnet101_gn_ws": "resnet101_gn_ws-3e3c308c.pth",
        "jhu/resnext50_32x4d_gn_ws": "resnext50_32x4d_gn_ws-0d87ac85.pth",
        "jhu/resnext101_32x4d_gn_ws": "resnext101_32x4d_gn_ws-34ac1a9e.pth",
        "jhu/resnext50_32x4d_gn": "resnext50_32x4d_gn-c7e8b754.pth",
        "jhu/resnext101_32x4d_gn": "resnext101_32x4d_gn-ac3bb84e.pth",
        "msra/hrnetv2_w18_small": "hrnetv2_w18_small-b5a04e21.pth",
        "msra/hrnetv2_w18": "hrnetv2_w18-00eb2006.pth",
        "msra/hrnetv2_w32": "hrnetv2_w32-dc9eeb4f.pth",
        "msra/hrnetv2_w40": "hrnetv2_w40-ed0b031c.pth",
        "msra/hrnetv2_w48": "hrnetv2_w48-d2186c55.pth",
        "regnetx_800mf": "regnetx_800mf-1f4be4c7.pth",
        "regnetx_1.6gf": "regnetx_1.6gf-5791c176.pth",
        "regnetx_3.2gf": "regnetx_3.2gf-c2599b0f.pth",
        "regnetx_4.0gf": "regnetx_4.0gf-a88f671e.pth",
        "res2net101_v1d_26w_4s": "res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth",
        "resnest50": "resnest50_d2-7497a55b.pth",
        "resnest101": "resnest101_d2-f3b931b2.pth",
        "darknet53": "darknet53-a628ea1b.pth",
        "resnet18_v1c": "resnet18_v1c-b5776b93.pth",
        "resnet50_v1c": "resnet50_v1c-2cccc1ad.pth",
        "resnet101_v1c": "resnet101_v1c-e67eebb6.pth",
        "contrib/mobilenet_v3_large": "mobilenet_v3_large-bc2c3fd3.pth",
        "contrib/mobilenet_v3_small": "mobilenet_v3_small-47085aa1.pth",
    }.items()
} | {"mmdet/mobilenet_v2": "mmdetection/v2.0/third_party/mobilenet_v2_batch256_imagenet-ff34753d.pth"}

# Name behind mmcls:// -> path below the same host: the classifiers that mmclassification published.
MMCLS_FILES = {
    name: f"mmclassification/v0/{file}"
    for name, file in {
        "mobilenet_v2": "mobilenet_v2/mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth",
        "resnet50_v1d": "resnet/resnetv1d50_b32x8_imagenet_20210531-db14775a.pth",
        "resnet101_v1d": "resnet/resnetv1d101_b32x8_imagenet_20210531-6e13bcd3.pth",
        "resnet152_v1d": "resnet/resnetv1d152_b32x8_imagenet_20210531-278cf22a.pth",
        "resnext50_32x4d": "resnext/resnext50_32x4d_b32x8_imagenet_20210429-56066e27.pth",
        "resnext101_32x4d": "resnext/resnext101_32x4d_b32x8_imagenet_20210506-e0fa3dd5.pth",
        "resnext101_32x8d": "resnext/resnext101_32x8d_b32x8_imagenet_20210506-23a247d5.pth",
        "resnext152_32x4d": "resnext/resnext152_32x4d_b32x8_imagenet_20210524-927787be.pth",
        "se-resnet50": "se-resnet/se-resnet50_batch256_imagenet_20200804-ae206104.pth",
        "se-resnet101": "se-resnet/se-resnet101_batch256_imagenet_20200804-ba5b51d4.pth",
        "shufflenet_v1": "shufflenet_v1/shufflenet_v1_batch1024_imagenet_20200804-5d6cec73.pth",
        "shufflenet_v2": "shufflenet_v2/shufflenet_v2_batch1024_imagenet_20200812-5bf4721e.pth",
        "vgg11": "vgg/vgg11_batch256_imagenet_20210208-4271cd6c.pth",
        "vgg11_bn": "vgg/vgg11_bn_batch256_imagenet_20210207-f244902c.pth",
        "vgg13": "vgg/vgg13_batch256_imagenet_20210208-4d1d6080.pth",
        "vgg13_bn": "vgg/vgg13_bn_batch256_imagenet_20210207-1a8b7864.pth",
        "vgg16": "vgg/vgg16_batch256_imagenet_20210208-db26f1a5.pth",
        "vgg16_bn": "vgg/vgg16_bn_batch256_imagenet_20210208-7e55cd29.pth",
        "vgg19": "vgg/vgg19_batch256_imagenet_20210208-e6920e4a.pth",
        "vgg19_bn": "vgg/vgg19_bn_batch256_imagenet_20210208-da620c4f.pth",
    }.items()
}

# Names that were given up -> today's.
OPENMMLAB_RENAMED = {
    "resnet50_caffe": "detectron/resnet50_caffe",
    "resnet50_caffe_bgr": "detectron2/resnet50_caffe",
    "resnet101_caffe": "detectron/resnet101_caffe",
    "resnet101_caffe_bgr": "detectron2/resnet101_caffe",
}
