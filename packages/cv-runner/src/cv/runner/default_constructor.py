"""How a runner is put together unless a config says otherwise."""

from __future__ import annotations

from typing import Any

from cv.runner.builder import RUNNER_BUILDERS, RUNNERS


@RUNNER_BUILDERS.register_module()
class DefaultRunnerConstructor:
    """Builds the runner that ``runner_cfg['type']`` names.

    Subclass it, and name it in the config as ``constructor``, to set up a runner in your own way.

    Args:
        runner_cfg: ``type`` and arguments of the runner.
        default_args: arguments used where ``runner_cfg`` has none.

    Raises:
        TypeError: ``runner_cfg`` is not a dict.
    """

    def __init__(self, runner_cfg: dict[str, Any], default_args: dict[str, Any] | None = None) -> None:
        if not isinstance(runner_cfg, dict):
            raise TypeError(f"runner_cfg must be a dict, got {type(runner_cfg).__name__}")
        self.runner_cfg = runner_cfg
        self.default_args = default_args

    def __call__(self) -> Any:
        """Build the runner."""
        return RUNNERS.build(self.runner_cfg, default_args=self.default_args)
