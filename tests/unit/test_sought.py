"""Many texts that are looked for at once are found wherever they are, by the library and without it."""

from __future__ import annotations

import pickle
from pathlib import Path
from random import Random, randrange

import pytest

from effort import tries
from fuzzing import assert_no_fault, fuzz, noticed
from stedi.privacy import sought, tokens
from stedi.privacy.sought import Sought

SOURCE = Path(sought.__file__).with_suffix(".c")


@pytest.fixture(params=["native", "plain"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "plain":
        monkeypatch.setattr(sought, "library", lambda: None)
    elif sought.library() is None:
        pytest.skip("the library is not compiled")
    return str(request.param) == "native"


def test_what_stands_alone_in_a_text_is_found(native: bool) -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance, standing = Random(seed), 0

    def some(most: int) -> str:
        return "".join(chance.choice("ab1-_ .@\n\0é\ud800\U0001f600") for _ in range(1 + chance.randrange(most)))

    for _ in range(tries(300, 1_000, 50_000)):
        parts = list({some(chance.choice([2, 4, 12])) for _ in range(chance.choice([1, 16, 17, 60]))})
        text = "".join(chance.choice([some(9), chance.choice(parts), "\n"]) for _ in range(chance.randrange(20)))
        looked = Sought(parts)
        found = set(looked.among(text))
        alone = {part for part in parts if tokens.stands(text, part)}
        assert alone <= found <= set(parts), f"seed {seed}"
        assert looked.may_stand(text) or not alone
        if len(parts) > tokens.FEW and native:
            assert found == {part for part in parts if part in text}, f"seed {seed}"
            assert looked.may_stand(text) == bool(found)
        standing += len(alone)
    assert standing


def test_texts_that_begin_and_end_alike_are_told_apart(native: bool) -> None:
    every = [f"customer{number:05}@test.example" for number in range(3_000)]
    looked = Sought(every[::3])
    text = "\n".join(every[1::3])
    assert not native or not looked.may_stand(text)
    assert every[33] in looked.among(f"{text}\n{every[33]}")


@pytest.mark.skipif(sought.library() is None, reason="no compiler")
def test_texts_that_begin_and_end_alike_are_looked_for_by_what_differs() -> None:
    """Otherwise every text like them would be compared with each of them."""
    every = [f"customer{number:03}@test.example" for number in range(100)]
    offsets = sought._Table(every)._offsets
    assert all(len({text[at : at + 8] for text in every}) >= 10 for at in offsets)


def test_an_empty_text_and_none_are_looked_for(native: bool) -> None:
    many = [f"nobody{number}" for number in range(tokens.FEW + 1)]
    assert not list(Sought(()).among("a"))
    assert not Sought(()).may_stand("a")
    assert "nobody3" in Sought(["", *many]).among("nobody3")


def test_another_process_looks_for_the_same(native: bool) -> None:
    many = [f"nobody{number}" for number in range(tokens.FEW + 1)]
    looked = pickle.loads(pickle.dumps(Sought(many)))
    assert list(looked.among("a nobody7 b")) == ["nobody7"]


def test_no_texts_make_the_library_leave_its_memory_or_miss_one(tmp_path: Path) -> None:
    count = tries(5_000, 20_000, 3_000_000)
    assert_no_fault(tmp_path, SOURCE, count, count)


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("WIDTH[width + 1] <= size", "WIDTH[width + 1] <= size + 1"),
        ("length > size - start", "length > size + 1 - start"),
        ("start < 0 || ", ""),
        ("if (left >= 8)", "if (left >= 7)"),
        ("place < left", "place <= left"),
        ("one > 1 ?", "one > 2 ?"),
        ("at - begin; }", "at + 1 - begin; }"),
        ("sought->next[text] = *first;", ""),
        ("sought->widths |= 1 << width", "sought->widths = 1 << width"),
    ],
)
def test_a_search_without_one_of_its_bounds_is_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    assert noticed(fuzz(tmp_path, SOURCE, 6_000, mutant=(bound, looser)))
