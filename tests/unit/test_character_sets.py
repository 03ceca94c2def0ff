"""Which characters a column of a small character set does not hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_entry.dialects.character_sets import CODECS, outside


@given(st.sampled_from(sorted(CODECS)), st.text())
def test_p17_what_lies_outside_is_what_cannot_be_encoded(character_set: str, text: str) -> None:
    pattern = outside(character_set)
    assert pattern is not None
    try:
        text.encode(CODECS[character_set])
    except UnicodeEncodeError:
        assert re.search(pattern, text)
    else:
        assert not re.search(pattern, text)


@pytest.mark.parametrize("character_set", ["AL32UTF8", "UTF8", "65001", "932", "0", "JA16SJIS"])
def test_unicode_and_sets_of_several_bytes_have_no_pattern(character_set: str) -> None:
    assert outside(character_set) is None
