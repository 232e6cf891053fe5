"""Reading bodies and editing trees by path."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.errors import ClientError
from newapi_proxy.wire import tree

BAD = {
    "empty": b"",
    "no JSON": b"hello",
    "half": b'{"model": "a"',
    "a list": b"[1]",
    "a number": b"1",
    "broken text": b'{"model": "\xff"}',
    "UTF-16": '{"model": "a"}'.encode("utf-16"),
    "nested too deep": b'{"a":' * 500 + b"1" + b"}" * 500,
    "nested beyond the decoder": b"[" * 100_000,
    "a lone surrogate": b'{"model": "\\ud800"}',
    "a NaN": b'{"a": NaN}',
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_object_is_refused_with_words(name: str) -> None:
    """Every broken body is a 400 of the caller."""
    with pytest.raises(ClientError) as caught:
        tree.read(BAD[name])
    assert caught.value.status == 400
    assert caught.value.code == "invalid_json"


def test_a_syntax_error_is_placed() -> None:
    """The message names line and column."""
    with pytest.raises(ClientError, match=r"line 2, column"):
        tree.read(b'{\n"model": }')


def test_edits_by_path() -> None:
    """Setting, defaulting and removing reach into objects and lists."""
    root = {"a": {"b": [1, {"c": 2}]}, "d": 3}
    assert tree.put(root, "a.b.1.c", 9) == {"a": {"b": [1, {"c": 9}]}, "d": 3}
    assert tree.put(root, "x.y", 1) == {**root, "x": {"y": 1}}
    assert tree.put(root, "d.e", 1)["d"] == {"e": 1}
    assert tree.default(root, "a.b.0", 9) == root
    assert tree.default(root, "a.z", 9)["a"]["z"] == 9
    assert tree.remove(root, "a.b.1.c") == {"a": {"b": [1, {}]}, "d": 3}
    assert tree.remove(root, "a.b.0") == {"a": {"b": [{"c": 2}]}, "d": 3}
    assert tree.remove(root, "nothing.here") is root


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "0"]), JSON, max_size=4),
    st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=1, max_size=4),
    JSON,
)
def test_edits_leave_the_original_alone(root: dict, names: list[str], value: object) -> None:
    """An edit returns a new tree; the client's own is never touched."""
    before = copy.deepcopy(root)
    path = ".".join(names)
    tree.put(root, path, value)
    tree.default(root, path, value)
    removed = tree.remove(root, path)
    assert root == before
    assert tree.find(tree.put({}, path, value), path) == value
    assert tree.find(removed, path) is tree.MISSING or "0" in names or "1" in names


def test_json_in_a_text_is_read_only_as_deep_as_it_may_be_walked() -> None:
    """What is no JSON is None, as is what nests without end; braces in strings are none."""
    assert tree.within('{"a":[1]}') == {"a": [1]}
    assert tree.within("no") is None
    assert tree.within("[" * 150 + "]" * 150) is not None
    assert tree.within("[" * 300 + "]" * 300) is None
    assert tree.within('"' + "[" * 300 + '"') == "[" * 300
    assert tree.within("[" * 300) is None
    assert tree.within("[" + ",".join(["[]"] * 300) + "]") == [[]] * 300


def test_a_number_without_end_is_no_place() -> None:
    """Paths come from clients too; Python reads no number of more than 4300 digits."""
    root = {"a": [1]}
    assert tree.find(root, f"a.{'9' * 5000}") is tree.MISSING
    assert tree.remove(root, f"a.{'9' * 5000}") is root
    assert tree.put(root, f"a.{'9' * 5000}", 2) == root


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": "b', {"a": "b"}),
        ('{"a": "b\\', {"a": "b"}),
        ('{"a": "b\\u00e', {"a": "b"}),
        ('{"a": [1, {"b": "c\\"}', {"a": [1, {"b": 'c"}'}]}),
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": 1, "b"', {"a": 1}),
        ('{"a": 1, "b":', {"a": 1}),
        ('{"a": 12', {"a": 12}),
        ('{"a": tru', {}),
        ('{"a": [[], ', {"a": [[]]}),
        ("{", {}),
        ("", None),
        ("nonsense", None),
        ('{"a": ]', None),
        ('{"a": "\\uzzzz beef', None),
        ('{"a": 1 ' + "b" * 300, None),
        ('{"a":' * 300, None),
    ],
)
def test_what_has_come_of_json(text: str, told: object) -> None:
    """A text that breaks off is what is whole in it, and the string in which it does; all other text is none."""
    assert tree.begun(text) == told
