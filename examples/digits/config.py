"""A two-stage detector of handwritten digits, small enough to be trained on two CPU cores in minutes."""

_base_ = ["_base_/schedule.py"]
custom_imports = dict(imports=["digits.scenes", "digits.detector"])  # they register what is named below

image_size = 128
channels = 48

model = dict(
    type="DigitDetector",
    backbone=dict(
        type="SmallBackbone",
        channels=[24, channels, channels],
        norm_cfg=dict(type="BN"),
        # Samples where the digits are, not on a grid; any convolution of the registry can stand here.
        last_conv_cfg=dict(type="DCNv2", deform_groups=1),
    ),
    proposals=dict(type="ProposalHead", in_channels=channels, stride=4, keep=32, nms=dict(iou_threshold=0.6)),
    classifier=dict(
        type="RoIHead",
        in_channels=channels,
        num_classes=10,
        roi_layer=dict(output_size=7, spatial_scale=1 / 4, sampling_ratio=2, aligned=True),
        score_threshold=0.05,
        nms=dict(type="nms", iou_threshold=0.4),
    ),
)

data = dict(
    samples_per_gpu=16,
    workers_per_gpu=1,
    train=dict(type="DigitScenes", split="train", length=2400, image_size=image_size),
    val=dict(type="DigitScenes", split="val", length=100, image_size=image_size),
    test=dict(type="DigitScenes", split="test", length=300, image_size=image_size),
)
video = dict(seconds=4, fps=15, size=(320, 240), digits=6)
