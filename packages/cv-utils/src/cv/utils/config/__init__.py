"""Configuration files: ``Config``, ``ConfigDict`` and the command-line action ``DictAction``."""

from .config import Config
from .config_dict import ConfigDict
from .dict_action import DictAction
from .errors import ConfigError, UntrustedCodeError

__all__ = ["Config", "ConfigDict", "DictAction", "ConfigError", "UntrustedCodeError"]
