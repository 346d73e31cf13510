"""What stands behind `?`."""

from __future__ import annotations

from urllib.parse import parse_qs

from hypothesis import example, given
from hypothesis import strategies as st

from heliosd.web.stream.query import parameters_of


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
    | st.text("a=&;%+2", max_size=9)
)
@example("token=e30.e30.a-b_c")
@example("a=b=c")
@example("=")
@example("a")
def test_a_query_of_one_parameter_is_read_as_any_other(query: str) -> None:
    assert parameters_of(query) == parse_qs(query, keep_blank_values=True)
