"""The schedule: how long, how fast, what is written down and when."""

total_epochs = 6
optimizer = dict(type="AdamW", lr=2e-3, weight_decay=0.01)
optimizer_config = dict(grad_clip=dict(max_norm=5.0))
lr_config = dict(policy="step", step=[3, 5], gamma=0.3, warmup="linear", warmup_iters=50, warmup_ratio=0.05)
checkpoint_config = dict(interval=1, max_keep_ckpts=2)
evaluation = dict(interval=1, save_best="AP50", rule="greater")
log_config = dict(interval=25, hooks=[dict(type="TextLoggerHook"), dict(type="TensorboardLoggerHook")])
workflow = [("train", 1)]
seed = 0
