"""The runner's hooks: registering, ordering, calling."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cv.runner.hooks.hook import HOOKS, Hook
from cv.runner.priority import Priority, get_priority, priority_name

if TYPE_CHECKING:
    from cv.runner.hooks.checkpoint import CheckpointHook

HookConfig = Hook | dict[str, Any] | None
#: A hook and which method of it to call; by its name, so that a method replaced later counts.
Call = tuple[Hook, str]


class HookRegistration:
    """The part of a runner that keeps hooks in their order and calls them."""

    logger: logging.Logger

    def __init__(self) -> None:
        self._hooks: list[Hook] = []
        #: The stage whose hooks are being called, and the hook that is.
        self._stage: str | None = None
        self._stage_hook: Hook | None = None
        #: What to call at the stages of an iteration, and the hooks this was looked up for.
        self._iter_calls: dict[str, list[Call]] = {}
        self._iter_hooks: list[Hook] = []

    @property
    def hooks(self) -> list[Hook]:
        """The registered hooks in calling order."""
        return self._hooks

    def register_hook(self, hook: Hook, priority: int | str | Priority = "NORMAL") -> None:
        """Put a hook into its place: after those of its priority, before those of lower priority.

        Args:
            hook: the hook.
            priority: a level's name, a :class:`Priority`, or a number; a lower number is called earlier.

        Raises:
            AssertionError: ``hook`` is not a Hook.
            ValueError: the hook has been registered before.
        """
        if not isinstance(hook, Hook):
            raise AssertionError(f"hook must be a Hook, got {type(hook).__name__}")
        if hasattr(hook, "priority"):
            raise ValueError(
                f'"priority" is a reserved attribute for hooks: {type(hook).__name__} has it already; '
                "was it registered before?"
            )
        hook.priority = get_priority(priority)
        behind = next((i for i, other in enumerate(self._hooks) if other.priority > hook.priority), None)
        self._hooks.insert(len(self._hooks) if behind is None else behind, hook)

    def register_hook_from_cfg(self, hook_cfg: dict[str, Any]) -> None:
        """Build a hook and register it.

        Args:
            hook_cfg: ``type`` is the hook's name, ``priority`` (default NORMAL) its priority, the rest its
                arguments.
        """
        cfg = dict(hook_cfg)
        priority = cfg.pop("priority", "NORMAL")
        self.register_hook(HOOKS.build(cfg), priority=priority)

    def call_hook(self, fn_name: str, *, calls: Sequence[Call] | None = None) -> None:
        """Call all hooks.

        Args:
            fn_name: the name of the stage, such as ``'before_train_epoch'``. Hooks that do nothing there
                are left out.
            calls: what to call instead of all hooks.
        """
        if calls is None:
            calls = self._iter_calls.get(fn_name)
            if calls is None or self._iter_hooks != self._hooks:  # users change the list itself
                calls = self._calls_at(fn_name)
        outer_stage, outer_hook = self._stage, self._stage_hook
        self._stage = fn_name
        try:
            for hook, method in calls:
                self._stage_hook = hook
                getattr(hook, method)(self)
        except Exception as error:
            self._name_hook(error, self._stage_hook, fn_name)
            raise
        finally:
            self._stage, self._stage_hook = outer_stage, outer_hook

    def _calls_at(self, stage: str) -> list[Call]:
        """What to call at a stage; for an iteration's, kept until the epoch or the hooks change."""
        calls = [(hook, name) for hook in self._hooks if (name := hook.method_at(stage)) is not None]
        if self._iter_hooks != self._hooks or not stage.endswith("_iter"):
            self._iter_calls.clear()
            self._iter_hooks = list(self._hooks)
        if stage.endswith("_iter"):
            self._iter_calls[stage] = calls
        return calls

    def _name_hook(self, error: Exception, hook: Hook | None, stage: str) -> None:
        """Say which hook failed: in the log, and on the exception itself where Python can (3.11)."""
        if getattr(error, "cv_hook_named", False):
            return
        message = f"{type(hook).__name__}.{stage} failed"
        self.logger.error("%s: %s: %s", message, type(error).__name__, error)
        if hasattr(error, "add_note"):
            error.add_note(f"({message})")
        error.__dict__["cv_hook_named"] = True

    def get_hook_info(self) -> str:
        """Which hooks are called at which stage, in their order, as a text."""
        blocks = []
        for stage in Hook.stages:
            hooks = [hook for hook in self._hooks if hook.overrides(stage)]
            if hooks:
                lines = [f"({priority_name(h.priority):<12}) {type(h).__name__:<35}" for h in hooks]
                blocks.append("\n".join([f"{stage}:", *lines, " " + "-" * 20 + " "]))
        return "\n".join(blocks)

    # ----------------------------------------------------------------------- the documented hooks

    def register_training_hooks(
        self,
        lr_config: HookConfig,
        optimizer_config: HookConfig = None,
        checkpoint_config: HookConfig = None,
        log_config: dict[str, Any] | None = None,
        momentum_config: HookConfig = None,
        timer_config: HookConfig = {"type": "IterTimerHook"},  # noqa: B006 - documented default
        custom_hooks_config: Any = None,
    ) -> None:
        """Register the default hooks and custom ones. Configs may be None, dicts, or hooks; dicts are kept.

        ==================== ====================
        Hooks                Priority
        ==================== ====================
        LrUpdaterHook        VERY_HIGH (10)
        MomentumUpdaterHook  HIGH (30)
        OptimizerStepperHook ABOVE_NORMAL (40)
        CheckpointSaverHook  NORMAL (50)
        IterTimerHook        LOW (70)
        LoggerHook(s)        VERY_LOW (90)
        CustomHook(s)        defaults to NORMAL (50)
        ==================== ====================

        Custom hooks come after default hooks of the same priority.
        """
        self.register_lr_hook(lr_config)
        self.register_momentum_hook(momentum_config)
        self.register_optimizer_hook(optimizer_config)
        self.register_checkpoint_hook(checkpoint_config)
        self.register_timer_hook(timer_config)
        self.register_logger_hooks(log_config)
        self.register_custom_hooks(custom_hooks_config)

    def register_lr_hook(self, lr_config: HookConfig) -> None:
        """Register a learning-rate hook: ``dict(policy='step', …)``, ``dict(type=…)`` or a hook."""
        self._register(_with_policy(lr_config, "LrUpdaterHook"), None, Priority.VERY_HIGH)

    def register_momentum_hook(self, momentum_config: HookConfig) -> None:
        """Register a momentum hook: ``dict(policy='cyclic', …)``, ``dict(type=…)`` or a hook."""
        self._register(_with_policy(momentum_config, "MomentumUpdaterHook"), None, Priority.HIGH)

    def register_optimizer_hook(self, optimizer_config: HookConfig) -> None:
        """Register an optimizer hook; ``type`` is OptimizerHook by default."""
        self._register(optimizer_config, "OptimizerHook", Priority.ABOVE_NORMAL)

    def register_checkpoint_hook(self, checkpoint_config: HookConfig) -> None:
        """Register a checkpoint hook; ``type`` is CheckpointHook by default."""
        self._register(checkpoint_config, "CheckpointHook", Priority.NORMAL)

    def register_timer_hook(self, timer_config: HookConfig) -> None:
        """Register a timer hook; ``type`` is IterTimerHook by default."""
        self._register(timer_config, "IterTimerHook", Priority.LOW)

    def register_profiler_hook(self, profiler_config: HookConfig) -> None:
        """Register a profiler hook; ``type`` is ProfilerHook by default."""
        self._register(profiler_config, "ProfilerHook", Priority.NORMAL)

    def register_logger_hooks(self, log_config: dict[str, Any] | None) -> None:
        """Register logger hooks: ``dict(interval=…, hooks=[dict(type='TextLoggerHook'), …])``."""
        if log_config is None:
            return
        interval = log_config["interval"]
        for info in log_config["hooks"]:
            hook = HOOKS.build(dict(info), default_args={"interval": interval})
            self.register_hook(hook, priority=Priority.VERY_LOW)

    def register_custom_hooks(self, custom_config: Any) -> None:
        """Register custom hooks: one or a list of dicts (with ``priority``, NORMAL by default) or hooks."""
        if custom_config is None:
            return
        for config in custom_config if isinstance(custom_config, list) else [custom_config]:
            if isinstance(config, dict):
                self.register_hook_from_cfg(config)
            else:
                self.register_hook(config, priority=Priority.NORMAL)

    def _register(self, config: HookConfig, default_type: str | None, priority: Priority) -> None:
        if config is None:
            return
        if isinstance(config, dict):
            defaults = {"type": default_type} if default_type else {}
            hook = HOOKS.build({**defaults, **copy.deepcopy(dict(config))})
        else:
            hook = config
        self.register_hook(hook, priority=priority)

    def _checkpoint_hook(self) -> CheckpointHook | None:
        from cv.runner.hooks.checkpoint import CheckpointHook

        return next((hook for hook in self._hooks if isinstance(hook, CheckpointHook)), None)


def _with_policy(config: HookConfig, suffix: str) -> HookConfig:
    """Translate ``policy='step'`` to ``type='StepLrUpdaterHook'``.

    Names that are all lower case are title-cased; others (``CosineAnnealing``) are taken as they are.
    """
    if not isinstance(config, dict):
        return config
    config = dict(config)
    if "policy" in config:
        policy = config.pop("policy")
        config["type"] = (policy.title() if policy == policy.lower() else policy) + suffix
    elif "type" not in config:
        raise KeyError(f"config must have the key 'policy' or 'type', got {config}")
    return config
