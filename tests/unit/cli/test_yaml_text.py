"""Texts that people and programs hand over mean the same, whichever reader reads them."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trivet.cli import yaml_text

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="ascii")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc:-"), inner),
    max_leaves=12,
)


@given(_values)
def test_what_is_written_is_read_back(value: object) -> None:
    assert yaml_text.load(yaml_text.dump(value)) == value
    assert yaml_text.load(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    ["{a: 1}", "[1, 0x10]", "- 10.0.0.0/24\n- yes", "{'a': NaN}", '{"a": 1}\n', "80", "", "[NaN]"],
)
def test_it_means_what_yaml_means(text: str) -> None:
    assert yaml_text.load(text) == yaml.safe_load(text)
    assert list(yaml_text.load_all(text)) == list(yaml.safe_load_all(text))


@pytest.mark.parametrize("text", ["{", "a: b: c", "!!python/object:os.system {}", "\x00"])
def test_what_cannot_be_read_is_said(text: str) -> None:
    with pytest.raises(yaml_text.Unreadable):
        yaml_text.load(text)
