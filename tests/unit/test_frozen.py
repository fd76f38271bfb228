"""The package's dataclasses are dataclasses to whoever uses them, and cost less to define."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stedi
from stedi import _frozen

TEXT = """
from __future__ import annotations
from collections.abc import Mapping
from typing import Any, ClassVar

@dataclass(frozen=True, slots=True)
class Place:
    '''Where something is.'''

    name: str
    hidden: int = field(default=3, repr=False, compare=False)
    tags: Mapping[str, int] = field(default_factory=dict)
    kind: str = "plain"
    KIND: ClassVar[str] = "place"
    met: list[int] = field(init=False, default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError(self.name)

    @property
    def loud(self) -> str:
        return self.name.upper()

@dataclass(frozen=True, slots=True)
class One:
    name: float

@dataclass(frozen=True, slots=True)
class Empty:
    pass

@dataclass(slots=True)
class Open:
    name: str
    seen: list[str] = field(default_factory=list)
"""


def defined(name: str, dataclass: Any, field: Any) -> dict[str, Any]:
    """Returns the classes as one of both modules defines them, in a module that can be imported by its name."""
    module: Any = type(sys)(name)
    module.dataclass, module.field = dataclass, field
    sys.modules[name] = module
    exec(compile(TEXT, f"{name}.py", "exec", dont_inherit=True), module.__dict__)
    return dict(module.__dict__)


OURS = defined("ours_of_test_frozen", _frozen._dataclass, _frozen._Field)
THEIRS = defined("theirs_of_test_frozen", dataclasses.dataclass, dataclasses.field)


class Pair(NamedTuple):
    """A named tuple, which has places to match as a dataclass has."""

    one: Any
    other: Any


BOTH = pytest.mark.parametrize("classes", [OURS, THEIRS], ids=["ours", "theirs"])


def attempted(do: Any) -> Any:
    """Returns what a call returns, or the type of its error."""
    try:
        return do()
    except Exception as error:
        return type(error)


@BOTH
def test_an_instance_holds_its_values_and_takes_no_others(classes: dict[str, Any]) -> None:
    place = classes["Place"]("a", tags={"x": 1})
    assert (place.name, place.hidden, place.tags, place.kind, place.loud) == ("a", 3, {"x": 1}, "plain", "A")
    assert repr(place) == "Place(name='a', tags={'x': 1}, kind='plain')"
    assert classes["Place"]("a").tags is not classes["Place"]("a").tags
    for forbidden in (lambda: setattr(place, "name", "b"), lambda: delattr(place, "name")):
        assert attempted(forbidden) is dataclasses.FrozenInstanceError
    assert attempted(lambda: setattr(place, "other", 1)) in (dataclasses.FrozenInstanceError, TypeError)
    assert not hasattr(place, "__dict__")
    assert attempted(lambda: classes["Place"]("bad")) is ValueError
    assert attempted(lambda: classes["Place"]()) is TypeError
    assert attempted(lambda: classes["Place"]("a", strange=1)) is TypeError
    assert classes["Place"].KIND == "place"
    opened = classes["Open"]("a")
    opened.name = "b"
    assert opened == classes["Open"]("b")
    assert attempted(lambda: hash(opened)) is TypeError
    assert attempted(lambda: setattr(opened, "other", 1)) is AttributeError


@BOTH
def test_equality_and_hash_are_of_the_compared_values_and_the_class(classes: dict[str, Any]) -> None:
    one, empty = classes["One"], classes["Empty"]
    assert one(1.0) == one(1) != one(2)
    assert hash(one(1.0)) == hash(one(1))
    assert one(1.0) != 1.0
    nan = float("nan")
    assert OURS["One"](nan) == OURS["One"](nan)  # those of the standard library are not from Python 3.13 on
    assert empty() == empty()
    assert len({empty(), empty()}) == 1
    assert classes["Place"]("a", 1) == classes["Place"]("a", 2)


@BOTH
def test_functions_of_the_standard_library_take_them(classes: dict[str, Any]) -> None:
    kind = classes["Place"]
    place = kind("a", 4, {"x": 1})
    assert all(map(dataclasses.is_dataclass, (kind, place)))
    assert (kind.__dataclass_params__.frozen, classes["Open"].__dataclass_params__.frozen) == (True, False)
    assert [field.name for field in dataclasses.fields(kind)] == ["name", "hidden", "tags", "kind", "met"]
    assert [field.default for field in dataclasses.fields(kind)][1:4:2] == [3, "plain"]
    assert dataclasses.fields(kind)[2].default_factory is dict
    assert dataclasses.asdict(place) == {"name": "a", "hidden": 4, "tags": {"x": 1}, "kind": "plain", "met": []}
    assert dataclasses.replace(place, name="b") == kind("b", 4, {"x": 1})
    assert list(inspect.signature(kind).parameters) == ["name", "hidden", "tags", "kind"]
    assert get_type_hints(kind.__init__)["tags"] == Mapping[str, int]
    assert get_type_hints(kind)["KIND"] == ClassVar[str]
    for copied in (copy.copy(place), copy.deepcopy(place), pickle.loads(pickle.dumps(place))):
        assert copied == place
        assert (copied.hidden, copied.met) == (4, [])
    match place:
        case kind("a", 4):
            pass
        case _:
            raise AssertionError("it has no places")


@given(st.text(), st.integers(), st.dictionaries(st.text(), st.integers()), st.text())
def test_both_are_described_compared_and_copied_alike(name: str, hidden: int, tags: dict[str, int], kind: str) -> None:
    def facts(classes: dict[str, Any]) -> list[Any]:
        place = classes["Place"](name, hidden, tags, kind)
        other = classes["Place"](name, 0, dict(tags))
        return [repr(place), place == other, dataclasses.asdict(place), repr(copy.deepcopy(place))]

    if name != "bad":
        assert facts(OURS) == facts(THEIRS)


@given(st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_asdict_and_replace_do_as_those_of_the_standard_library(value: Any) -> None:
    nested = OURS["One"]((OURS["One"](value), [value], Pair(OURS["One"](value), value)))
    assert _frozen._asdict(nested) == dataclasses.asdict(nested)
    assert _frozen._replace(nested, name=value) == dataclasses.replace(nested, name=value) == OURS["One"](value)


@pytest.mark.parametrize("name", ["Place", "Open", "Empty"])
def test_a_signature_shows_defaults_and_says_where_a_factory_makes_one(name: str) -> None:
    assert str(inspect.signature(OURS[name])) == str(inspect.signature(THEIRS[name]))


def test_a_default_that_changes_is_refused() -> None:
    with pytest.raises(AssertionError, match="every instance's"):
        exec(TEXT.replace("hidden: int = field(default=3, repr=False, compare=False)", "hidden: list = []"), dict(OURS))


def test_the_package_defines_no_class_by_the_standard_library() -> None:
    for path in Path(stedi.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        assert path.name == "_frozen.py" or "from dataclasses import dataclass" not in text, (
            f"{path}: use stedi._frozen"
        )
