"""Damaged files: random changes of bytes, and the memory that reading them takes."""

from __future__ import annotations

import tracemalloc

from hypothesis import strategies as st


@st.composite
def mutations(draw):
    """Draw changes to a file: flip a bit, write a byte, cut the end off or insert equal bytes."""
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "write", "cut", "insert"]),
                st.integers(0, 10**6),
                st.integers(0, 255),
            ),
            min_size=1,
            max_size=4,
        )
    )


def mutated(content, changes):
    content = bytearray(content)
    for how, place, value in changes:
        at = place % max(1, len(content))
        if not content or how == "cut":
            del content[at:]
        elif how == "flip":
            content[at] ^= 1 << value % 8
        elif how == "write":
            content[at] = value
        else:
            content[at:at] = bytes([value]) * (1 + value % 8)
    return bytes(content)


def peak_nbytes(function, *arguments):
    tracemalloc.start()
    try:
        return function(*arguments), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
