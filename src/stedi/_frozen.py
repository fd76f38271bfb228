"""Dataclasses with slots that take a fifth as long to define: commands define dozens before they begin.

`dataclasses` imports `inspect` and compiles up to eight functions for a class. Here `__init__` alone is compiled. For
the rest these classes are dataclasses: type checkers see them as such, and `fields`, `asdict` and `replace` of
`dataclasses` take them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn


class _Unset:
    """Stands for a value that is not given; a signature shows it where a factory makes the default value."""

    def __repr__(self) -> str:
        return "<factory>"


_UNSET: Any = _Unset()


class _Field:
    """What `field` says of a field, or a default value alone."""

    __slots__ = ("compare", "default", "default_factory", "init", "repr")

    def __init__(
        self,
        *,
        default: Any = _UNSET,
        default_factory: Callable[[], Any] | None = None,
        init: bool = True,
        repr: bool = True,  # noqa: A002 # as in `dataclasses`
        compare: bool = True,
    ) -> None:
        self.default, self.default_factory = default, default_factory
        self.init, self.repr, self.compare = init, repr, compare


class _Standard:
    """An attribute by which `dataclasses` knows its classes, made when it is first read.

    Args:
        name: Its name.
        fields: The fields of the class.
        frozen: Whether its instances never change.
    """

    def __init__(self, name: str, fields: dict[str, _Field], *, frozen: bool) -> None:
        self._name, self._fields, self._frozen = name, fields, frozen

    def __get__(self, _: object, owner: type) -> Any:
        import dataclasses

        listed = []
        for name, field in self._fields.items():
            options: dict[str, Any] = {"init": field.init, "repr": field.repr, "compare": field.compare}
            if field.default is not _UNSET:
                options["default"] = field.default
            if field.default_factory is not None:
                options["default_factory"] = field.default_factory
            listed.append((name, owner.__annotations__[name], dataclasses.field(**options)))
        made = dataclasses.make_dataclass(owner.__name__, listed, frozen=self._frozen, slots=True)
        # found on the class itself from now on
        setattr(owner, self._name, getattr(made, self._name))
        return getattr(made, self._name)


def _dataclass(*, slots: bool, frozen: bool = False) -> Callable[[type], type]:
    """Returns what makes a class without bases a dataclass with slots; the module's annotations are texts."""
    assert slots, "for others there is `dataclasses`"
    return lambda cls: _defined(cls, frozen=frozen)


def _defined(cls: type, *, frozen: bool) -> type:
    assert cls.__bases__ == (object,), f"{cls.__name__}: expected no base, found {cls.__bases__}"
    # slots cannot be added to a class: a second one is made without what gave the first one's instances a `__dict__`
    content = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    fields: dict[str, _Field] = {}
    for name, kind in cls.__annotations__.items():
        if kind.startswith("ClassVar"):
            continue
        value = content.pop(name, _UNSET)
        fields[name] = value if isinstance(value, _Field) else _Field(default=value)
        # lists, dictionaries and sets have no hash
        assert fields[name].default.__hash__, f"{cls.__name__}.{name}: a default that changes is every instance's"
    given = tuple(name for name, field in fields.items() if field.init)
    shown = [name for name, field in fields.items() if field.repr]
    values = _values([name for name, field in fields.items() if field.compare])

    def equal(self: Any, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    def described(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    methods: dict[str, Any] = {"__init__": _init(cls, fields), "__eq__": equal, "__repr__": described}
    methods |= {"__hash__": hashed, **_FROZEN} if frozen else {"__hash__": None}
    methods |= {"__match_args__": given, "__replace__": _replace}
    methods |= {
        name: _Standard(name, fields, frozen=frozen) for name in ("__dataclass_fields__", "__dataclass_params__")
    }
    made = type(cls)(cls.__name__, cls.__bases__, methods | content | {"__slots__": tuple(fields)})
    made.__qualname__ = cls.__qualname__
    return made


def _values(names: list[str]) -> Callable[[Any], Any]:
    """Returns a function that returns the values of some fields as a tuple."""
    # of one name, `attrgetter` returns the value and no tuple
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple([getattr(record, name) for name in names])


def _init(cls: type, fields: dict[str, _Field]) -> Callable[..., None]:
    """Returns the constructor of a class; errors and type hints see it as a function of the class's module."""
    given, lines = [], []
    # the class's own `__setattr__` refuses, if it is frozen
    outer: dict[str, Any] = {"__set": object.__setattr__, "__unset": _UNSET}
    for name, field in fields.items():
        value = name
        if not field.init:
            outer[f"__factory_{name}"] = field.default_factory
            value = f"__factory_{name}()"
        elif field.default_factory is not None:
            outer[f"__factory_{name}"] = field.default_factory
            given.append(f"{name}=__unset")
            value = f"__factory_{name}() if {name} is __unset else {name}"
        elif field.default is not _UNSET:
            outer[f"__default_{name}"] = field.default
            given.append(f"{name}=__default_{name}")
        else:
            given.append(name)
        lines.append(f"  __set(self, '{name}', {value})")
    if "__post_init__" in cls.__dict__:
        lines.append("  self.__post_init__()")
    body = "\n".join(lines or ["  pass"])
    text = f"def outer({', '.join(outer)}):\n def __init__({', '.join(['self', *given])}):\n{body}\n return __init__"
    found: dict[str, Any] = {}
    exec(text, sys.modules[cls.__module__].__dict__, found)
    init: Callable[..., None] = found["outer"](**outer)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {name: cls.__annotations__[name] for name in fields if fields[name].init} | {"return": None}
    return init


def _setattr(self: object, name: str, value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__slots__]


def _setstate(self: Any, state: list[Any]) -> None:
    # by default, unpickling assigns, which a frozen class refuses
    for name, value in zip(self.__slots__, state, strict=True):
        object.__setattr__(self, name, value)


def _replace(record: Any, /, **changes: Any) -> Any:
    """Returns a copy with other values of some fields."""
    return type(record)(**{name: getattr(record, name) for name in record.__match_args__} | changes)


def _asdict(record: Any) -> Any:
    """Returns a record's values by their names, those of records within it, too."""
    if isinstance(record, tuple | list):
        values = map(_asdict, record)
        return type(record)(*values) if hasattr(record, "_fields") else type(record)(values)  # a named tuple, or not
    if hasattr(record, "__match_args__"):
        return {name: _asdict(getattr(record, name)) for name in record.__slots__}
    if isinstance(record, dict):
        return {_asdict(name): _asdict(value) for name, value in record.items()}
    return record


_FROZEN = {
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}

if TYPE_CHECKING:
    from dataclasses import asdict as asdict
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
else:
    asdict, dataclass, field, replace = _asdict, _dataclass, _Field, _replace
