"""Registries: from a name in a config to a class, and from a config to an object.

A registry maps names to classes. Registries form a tree: a child names its parent and has a scope, and
``"scope.Name"`` looks in the child of that scope, from anywhere in the tree. A registry may also name an
entry-point group; a distribution that is installed then contributes classes without anybody importing it.

A name is looked for in this order: what was registered explicitly in this registry, the entry points of
this registry, then the same in its parent, and so on up.
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from cv.utils.errors import CvDeprecationWarning, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Registry", "build_from_cfg", "construct"]

_T = TypeVar("_T", bound=type)

_FORMER_SCOPES = {"cv": "mmcv"}  # configs written for mmcv 1.x say ``mmcv.GELU``
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'$")  # as Python words it


def build_from_cfg(
    cfg: dict[str, Any], registry: Registry, default_args: dict[str, Any] | None = None
) -> Any:
    """Build an object from a config dict.

    Args:
        cfg: The arguments of the class, and under ``type`` its name in the registry or the class itself.
            It is not changed.
        registry: Where to look the name up.
        default_args: Arguments used where ``cfg`` has none of that name; ``type`` may be among them.

    Returns:
        The object.

    Raises:
        TypeError: ``cfg`` or ``default_args`` is not a dict, ``registry`` not a :class:`Registry`, or the
            type neither a str nor a class.
        KeyError: There is no ``type``, or its name is not registered; the text suggests near matches.
        Exception: What the constructor raised: the same type, with the name of the class before the
            message, chained to the original. Exceptions that cannot be made from a message alone pass
            unchanged, with a note.
    """
    if not isinstance(cfg, dict):
        raise TypeError(f"cfg must be a dict, but got {type(cfg)}")
    if not isinstance(registry, Registry):
        raise TypeError(f"registry must be a cv.utils.Registry object, but got {type(registry)}")
    if default_args is None:
        args = dict(cfg)
    elif isinstance(default_args, dict):
        args = {**default_args, **cfg}
    else:
        raise TypeError(f"default_args must be a dict or None, but got {type(default_args)}")

    try:
        kind = args.pop("type")
    except KeyError:
        raise KeyError(
            f'`cfg` or `default_args` must contain the key "type", but got {cfg} and {default_args}'
        ) from None
    if isinstance(kind, str):
        cls = registry.require(kind)
    elif isinstance(kind, type):
        cls = kind
    else:
        raise TypeError(f"type must be a str or valid type, but got {type(kind)}")

    return construct(cls, (), args)


def construct(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Make an object of a class that a config names.

    Raises:
        Exception: What the constructor raised, as :func:`build_from_cfg` says. For an argument that it does
            not take the text suggests near matches.
    """
    try:
        return cls(*args, **kwargs)
    except Exception as error:
        named = _with_class_name(error, cls)
        if named is None:
            raise
        raise named from error


class Registry:
    """A registry that maps names to classes and builds objects from configs.

    Args:
        name: What the registry holds, for messages (``"backbone"``).
        build_func: Called as ``build_func(*args, **kwargs, registry=self)`` by :meth:`build`. Default: the
            parent's, or :func:`build_from_cfg`.
        parent: A registry in which this one becomes a child: its classes can be built from there as
            ``"scope.Name"``, and names unknown here are looked up there.
        scope: The key of this registry among its parent's children. Default: the top-level package that
            defines the registry.
        entry_point_group: Classes that installed distributions declare under this entry-point group can be
            built too. The group is read once, at the first name that is not registered.
        providers: For error texts: the distribution that ships a known name (``{"DCN": "cv-ops"}``).

    Raises:
        TypeError: An argument of the wrong type.
        UsageError: The parent already has a child of this scope, or the scope is empty or has a dot.

    Example:
        >>> MODELS = Registry("models")
        >>> @MODELS.register_module()
        ... class ResNet:
        ...     def __init__(self, depth):
        ...         self.depth = depth
        >>> MODELS.build(dict(type="ResNet", depth=50)).depth
        50
    """

    def __init__(
        self,
        name: str,
        build_func: Callable[..., Any] | None = None,
        parent: Registry | None = None,
        scope: str | None = None,
        *,
        entry_point_group: str | None = None,
        providers: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, but got {type(name)}")
        if parent is not None and not isinstance(parent, Registry):
            raise TypeError(f"parent must be a Registry or None, but got {type(parent)}")
        if scope is None:
            scope = self.infer_scope()
        elif not isinstance(scope, str):
            raise TypeError(f"scope must be a str or None, but got {type(scope)}")
        elif not scope or "." in scope:
            raise UsageError(f"scope must be a non-empty str without a dot, but got {scope!r}")

        self._name = name
        self._module_dict: dict[str, type] = {}
        self._children: dict[str, Registry] = {}
        self._scope = scope
        self._entry_point_group = entry_point_group
        self._entry_points: dict[str, list[EntryPoint]] | None = None
        self._loaded: dict[str, type] = {}
        self._providers = dict(providers or {})
        self.parent = parent
        self.build_func: Callable[..., Any]
        if build_func is not None:
            self.build_func = build_func
        else:
            self.build_func = build_from_cfg if parent is None else parent.build_func
        if parent is not None:
            parent._add_children(self)

    def __len__(self) -> int:
        """Number of explicitly registered names."""
        return len(self._module_dict)

    def __contains__(self, key: str) -> bool:
        """Whether :meth:`get` finds the name."""
        return self.get(key) is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._name}, items={self._module_dict})"

    @property
    def name(self) -> str:
        """What the registry holds."""
        return self._name

    @property
    def scope(self) -> str:
        """The key of this registry among its parent's children."""
        return self._scope

    @property
    def module_dict(self) -> MutableMapping[str, type]:
        """The explicitly registered classes by name."""
        return self._module_dict

    @property
    def children(self) -> Mapping[str, Registry]:
        """The child registries by scope."""
        return self._children

    @staticmethod
    def infer_scope() -> str:
        """Infer the scope of a registry from where it is defined.

        Returns:
            The top-level package of the calling code: ``"mmdet"`` for a registry that is made in
            ``mmdet/models/builder.py``.
        """
        frame = sys._getframe(1)
        while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
            frame = frame.f_back
        module = frame.f_globals.get("__name__") or "__main__"
        return str(module).partition(".")[0]

    @staticmethod
    def split_scope_key(key: str) -> tuple[str | None, str]:
        """Split the first scope from a key.

        Example:
            >>> Registry.split_scope_key("mmdet.ResNet")
            ('mmdet', 'ResNet')
            >>> Registry.split_scope_key("ResNet")
            (None, 'ResNet')
        """
        scope, dot, rest = key.partition(".")
        return (scope, rest) if dot else (None, key)

    def get(self, key: str) -> type | None:
        """Look a name up.

        Args:
            key: A name, or ``"scope.Name"`` (also nested: ``"scope.inner.Name"``).

        Returns:
            The class, or None if there is none of that name.

        Raises:
            ImportError: The name is declared by an installed distribution but cannot be imported.
            RuntimeError: Two installed distributions declare the name.
        """
        found = self._module_dict.get(key)
        if found is not None:
            return found
        for registry in self._lineage():
            found = registry._search_down(key)
            if found is not None:
                return found
        return None

    def require(self, key: str) -> type:
        """Look a name up that must be there.

        Args:
            key: As in :meth:`get`.

        Returns:
            The class.

        Raises:
            KeyError: There is none of that name. The text suggests near matches and, for a name that a
                known distribution ships, how to install it.
        """
        found = self.get(key)
        if found is None:
            raise KeyError(self.describe_missing(key))
        return found

    def describe_missing(self, key: str) -> str:
        """The text of the error for an unknown name: what was searched, near matches, what to install."""
        text = f"{key} is not in the {self._name} registry"
        providers: dict[str, str] = {}
        known: set[str] = set()
        for registry in self._lineage():
            providers = {**registry._providers, **providers}
            known |= registry._known_names()
        scope, name = self.split_scope_key(key)
        for candidate in (key, name):
            if candidate in providers:
                return f"{text}; {_how_to_get(providers[candidate])}"
        near = _near_matches(key, known | set(providers))
        if not near and scope is not None:
            near = _near_matches(name, known | set(providers))
        if not near:  # the name of a class that is registered under another one: BatchNorm2d as BN
            by_class: dict[str, str] = {}
            for registry in self._lineage():
                for registered, cls in registry._module_dict.items():
                    by_class.setdefault(cls.__name__, registered)
            near = list(dict.fromkeys(by_class[found] for found in _near_matches(name, set(by_class))))
        if near:
            text += f"; did you mean {' or '.join(near)}?"
        elif not known:
            text += "; the registry is empty: has the module that registers its classes been imported?"
        return text

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Build an object: ``build_func(*args, **kwargs, registry=self)``.

        Args:
            *args: Usually the config dict, see :func:`build_from_cfg`.
            **kwargs: Usually ``default_args``.
        """
        return self.build_func(*args, **kwargs, registry=self)

    @overload
    def register_module(self, name: _T, force: bool = False, module: None = None) -> _T: ...
    @overload
    def register_module(
        self, name: str | list[str] | None = None, force: bool = False, *, module: _T
    ) -> _T: ...
    @overload
    def register_module(self, name: str | list[str] | None, force: bool, module: _T) -> _T: ...
    @overload
    def register_module(
        self, name: str | list[str] | None = None, force: bool = False, module: None = None
    ) -> Callable[[_T], _T]: ...
    def register_module(self, name: Any = None, force: bool = False, module: Any = None) -> Any:
        """Register a class, by a call or as a decorator.

        Args:
            name: The name, or several. Default: the name of the class. (A class given here is registered
                too, with a warning: that is the oldest form.)
            force: Replace what is registered under the name.
            module: The class, for the form as a call.

        Returns:
            The class, or the decorator if no class was given.

        Raises:
            TypeError: A name that is not a str, a ``force`` that is not a bool, or a thing that is not a
                class.
            KeyError: The name is taken and ``force`` is not set.

        Example:
            >>> BACKBONES = Registry("backbone")
            >>> @BACKBONES.register_module()
            ... class ResNet: ...
            >>> @BACKBONES.register_module(name=["mnet", "MobileNet"])
            ... class MobileNet: ...
            >>> class VGG: ...
            >>> BACKBONES.register_module(module=VGG)
            <class '...VGG'>
        """
        if not isinstance(force, bool):
            raise TypeError(f"force must be a boolean, but got {type(force)}")
        if isinstance(name, type):
            self._register_old(name, force)
            return name
        if not (name is None or isinstance(name, str) or _is_list_of_str(name)):
            raise TypeError(
                f"name must be either of None, an instance of str or a sequence of str, but got {type(name)}"
            )
        if module is not None:
            self._register_module(module, module_name=name, force=force)
            return module

        def register(cls: _T) -> _T:
            self._register_module(cls, module_name=name, force=force)
            return cls

        return register

    def deprecated_register_module(self, cls: Any = None, force: bool = False) -> Any:
        """The oldest form by its own name, as a call or a decorator with or without brackets; it warns."""
        if cls is None:
            return functools.partial(self.deprecated_register_module, force=force)
        self._register_old(cls, force)
        return cls

    def _register_old(self, cls: Any, force: bool) -> None:
        warnings.warn(
            "register_module(cls) and @register_module without brackets are deprecated, "
            "use register_module(module=cls) and @register_module()",
            CvDeprecationWarning,
            stacklevel=3,
        )
        self._register_module(cls, force=force)

    def _register_module(
        self, module_class: type, module_name: str | list[str] | None = None, force: bool = False
    ) -> None:
        if not isinstance(module_class, type):
            raise TypeError(f"module must be a class, but got {type(module_class)}")
        names = [module_class.__name__] if module_name is None else module_name
        if isinstance(names, str):
            names = [names]
        for name in names:  # all of them before the first change, so that a clash registers nothing
            if name in self._module_dict and not force:
                taken_by = self._module_dict[name]
                raise KeyError(
                    f"{name} is already registered in {self._name} "
                    f"(by {taken_by.__module__}.{taken_by.__qualname__}); force=True replaces it"
                )
        for name in names:
            self._module_dict[name] = module_class

    def _add_children(self, child: Registry) -> None:
        if child.scope in self._children:
            raise UsageError(f"scope {child.scope} exists in {self._name} registry")
        self._children[child.scope] = child

    def _lineage(self) -> Iterator[Registry]:
        registry: Registry | None = self
        while registry is not None:
            yield registry
            registry = registry.parent

    def _search_down(self, key: str) -> type | None:
        """Look in this registry and, by scope, in its children; never upwards."""
        found = self._module_dict.get(key) or self._from_entry_points(key)
        if found is not None:
            return found
        scope, rest = self.split_scope_key(key)
        if scope is None:
            return None
        if scope in (self._scope, _FORMER_SCOPES.get(self._scope)):
            found = self._search_down(rest)
            if found is not None:
                return found
        child = self._children.get(scope)
        return None if child is None else child._search_down(rest)

    def _known_names(self) -> set[str]:
        """The names that can be built here, those of the children with their scope."""
        names = {*self._module_dict, *self._read_entry_points()}
        for scope, child in self._children.items():
            names |= {f"{scope}.{name}" for name in child._known_names()}
        return names

    def _read_entry_points(self) -> dict[str, list[EntryPoint]]:
        """The entry points of the group by name; read once, one for each distribution that claims it."""
        if self._entry_points is None:
            self._entry_points = {}
            if self._entry_point_group is not None:
                self._entry_points = _entry_points_by_name(self._entry_point_group)
        return self._entry_points

    def _from_entry_points(self, key: str) -> type | None:
        loaded = self._loaded.get(key)
        if loaded is not None:
            return loaded
        claims = self._read_entry_points().get(key)
        if not claims:
            return None
        if len(claims) > 1:
            who = " and ".join(f"{_distribution(claim)} ({claim.value})" for claim in claims)
            raise RuntimeError(
                f"{key!r} of the {self._name} registry is declared by {who}; uninstall one of them, or "
                f"register the class you want under that name"
            )
        claim = claims[0]
        try:
            loaded = claim.load()
        except Exception as error:
            raise ImportError(
                f"{key!r} of the {self._name} registry is declared by the distribution "
                f"{_distribution(claim)} as {claim.value}, which cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(loaded, type):
            raise ImportError(
                f"{key!r} of the {self._name} registry is declared by the distribution "
                f"{_distribution(claim)} as {claim.value}, which is not a class but a {type(loaded).__name__}"
            )
        self._loaded[key] = loaded
        return loaded


def _how_to_get(distribution: str) -> str:
    """What to do about a name that a distribution ships but that was not found."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version(distribution)
    except PackageNotFoundError:
        return f"it comes with {distribution}: pip install {distribution}"
    return f"{distribution} {found} is installed and lacks it: pip install --upgrade {distribution}"


def _is_list_of_str(names: Any) -> bool:
    return isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)


def _near_matches(name: str, known: set[str]) -> list[str]:
    """Up to three known names that resemble this one, the nearest first."""
    import difflib

    same_letters = [other for other in sorted(known) if other.lower() == name.lower()]
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return list(dict.fromkeys(same_letters + near))[:3]


def _near_arguments(error: Exception, cls: type) -> str:
    """For an argument that a constructor does not take: those it takes that resemble it, as a question."""
    import inspect

    unknown = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    if unknown is None:
        return ""
    taken: set[str] = set()
    for base in cls.__mro__[:-1]:  # constructors that take **kwargs pass them up
        if "__init__" in vars(base):
            taken |= set(inspect.signature(vars(base)["__init__"]).parameters)
    near = _near_matches(unknown[1], taken - {"self", "args", "kwargs"} - {unknown[1]})
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _entry_points_by_name(group: str) -> dict[str, list[EntryPoint]]:
    from importlib.metadata import entry_points

    by_name: dict[str, list[EntryPoint]] = {}
    for entry_point in entry_points(group=group):
        claims = by_name.setdefault(entry_point.name, [])
        # An editable install may put the same metadata on the path twice: that is no clash.
        if all(_distribution(claim) != _distribution(entry_point) for claim in claims):
            claims.append(entry_point)
    return by_name


def _distribution(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "an unknown distribution"


def _with_class_name(error: Exception, cls: type) -> Exception | None:
    """The same exception with the name of the class before its message, or None if it cannot be made.

    Exceptions with further state (an errno, a position in a text) would lose it, so they are left as they
    are, with a note that tracebacks show (from Python 3.11).
    """
    kind = type(error)
    if not vars(error) and len(error.args) <= 1 and not isinstance(error, (OSError, SyntaxError)):
        try:
            # The text of a KeyError is the repr of its key; of a sentence, one more quote at every level.
            sentence = kind is KeyError and " " in str(error.args[:1])
            text = error.args[0] if sentence else error
            named = kind(f"{cls.__name__}: {text}{_near_arguments(error, cls)}")
        except Exception:
            named = None
        if type(named) is kind:
            return named
    if hasattr(error, "add_note"):
        error.add_note(f"raised while {cls.__module__}.{cls.__qualname__} was built from its config")
    return None
