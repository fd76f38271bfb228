"""State files: only what this lake has written, of this kind, for this lake, is read; everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedi.privacy import state
from stedi.privacy.pseudonyms import Key
from stedi.privacy.state import StateRefused

KEY, LAKE, KIND = Key(bytes(range(32))), "0123456789abcdef", "erasure"
CONTENT = {"people": ["m1", "m2"], "at": 7, "nested": {"a": [1, 2.5, None, True, "é\u2028"]}}
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def opened(raw: bytes, kind: str = KIND, lake: str = LAKE, key: Key = KEY) -> dict[str, object]:
    return state.unsealed(raw, "file", kind, lake, key, advice="do this")


@given(content=st.dictionaries(st.text(), plain, max_size=4))
def test_what_was_written_is_read(content: dict[str, object]) -> None:
    assert opened(state.sealed(KIND, LAKE, KEY, content)) == content


@given(data=st.data())
def test_any_other_byte_is_refused(data: st.DataObject) -> None:
    raw = state.sealed(KIND, LAKE, KEY, CONTENT)
    at = data.draw(st.integers(0, len(raw) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[at]))
    changed = data.draw(
        st.sampled_from([raw[:at] + bytes([other]) + raw[at + 1 :], raw[:at], raw[:at] + bytes([other]) + raw[at:]])
    )
    with pytest.raises(StateRefused, match="do this"):
        opened(changed)


@pytest.mark.parametrize("more", [b" ", b"\n", b"{}", b"\0", b"\n" + b"x"])
def test_bytes_behind_it_are_refused(more: bytes) -> None:
    with pytest.raises(StateRefused):
        opened(state.sealed(KIND, LAKE, KEY, CONTENT) + more)


def test_another_kind_another_lake_and_another_key_are_refused() -> None:
    raw = state.sealed(KIND, LAKE, KEY, CONTENT)
    for kind, lake, key in (
        ("tombstones", LAKE, KEY),
        (KIND, "fedcba9876543210", KEY),
        (KIND, LAKE, Key(bytes(32))),
        (KIND + LAKE[:1], LAKE[1:], KEY),
        ("", KIND + LAKE, KEY),
    ):
        with pytest.raises(StateRefused):
            opened(raw, kind, lake, key)


def test_a_key_that_follows_another_reads_what_that_one_wrote() -> None:
    assert opened(state.sealed(KIND, LAKE, KEY, CONTENT), key=Key(bytes(32), (KEY,))) == CONTENT


UNSEALED = {
    "nothing": b"",
    "its content alone": json.dumps(CONTENT).encode(),
    "a signature that is not ASCII": b"stedi-state 1 " + "é".encode() * 32 + b"\n{}",
    "an empty seal": b"stedi-state 1 \n{}",
    "half a seal": b"stedi-state 1 " + b"0" * 32 + b"\n{}",
    "a seal of zeros": b"stedi-state 1 " + b"0" * 64 + b"\n{}",
    "a later form": b"stedi-state 2 " + b"0" * 64 + b"\n{}",
    "a SHA-256 in its place": b"0" * 64 + b"\n{}",
    "another line's end": b"stedi-state 1 " + b"0" * 64 + b"\r\n{}",
}


@pytest.mark.parametrize("raw", UNSEALED.values(), ids=UNSEALED)
def test_what_has_no_seal_is_refused(raw: bytes) -> None:
    with pytest.raises(StateRefused, match="expected the content that this lake has written"):
        opened(raw)


STRANGE = {
    "a name twice": b'{"a": 1, "a": 2}',
    "a name twice, once by escape": rb'{"a": 1, "\u0061": 2}',
    "a name twice, far in": b'{"x": [{"a": 1, "a": 1}]}',
    "more behind it": b"{} {}",
    "a comma behind it": b"{},",
    "a zero byte behind it": b"{}\0",
    "not a number": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a number beyond a double": b'{"a": 1e999}',
    "a number of many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "nested arrays": b"[" * 40 + b"]" * 40,
    "nested far": b"[" * 100_000 + b"]" * 100_000,
    "nested and open": b'{"a":' * 100_000,
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": b'{"a": "\xe9"}',
    "single quotes": b"{'a': 1}",
    "nothing": b"",
    "escaped quotes without end": b'"' + rb"\"" * 100_000,
}


@pytest.mark.parametrize("raw", STRANGE.values(), ids=STRANGE)
def test_json_is_read_strictly(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|UTF-8"):
        state.parsed(raw)


def test_a_file_is_its_owners_alone_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state.write(path, KIND, LAKE, KEY, CONTENT)
    assert path.stat().st_mode & 0o077 == 0
    assert state.read(path, KIND, LAKE, KEY, advice="do this") == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]
