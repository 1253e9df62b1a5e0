"""A log in pieces: nothing is lost, and no piece is longer than what was read and one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kplug.log.pieces import LONGEST_LINE, Kind, pieces

LINE = st.sampled_from([b"a line\n", b"\n", b"x" * (LONGEST_LINE + 1), b"cut", b"\0\r\n"])


@given(st.lists(LINE | st.binary(min_size=1, max_size=9), max_size=30))
def test_nothing_is_lost(reads: list[bytes]) -> None:
    log = list(pieces(iter([*reads, b""]).__next__))
    assert b"".join(piece.data for piece in log) == b"".join(reads)
    whole = [piece for piece in log if piece.kind is Kind.LINES]
    assert all(piece.data.endswith(b"\n") for piece in whole[:-1])
    for piece, following in zip(log, log[1:]):
        assert (piece.kind in (Kind.BEGIN, Kind.MORE)) == (following.kind in (Kind.MORE, Kind.END))


def test_a_line_without_end_is_passed_on_as_it_comes() -> None:
    reads = iter([b"y" * LONGEST_LINE, b"z", b"more", b"end\nnext", b""])
    assert [(piece.kind, len(piece.data)) for piece in pieces(reads.__next__)] == [
        (Kind.BEGIN, LONGEST_LINE + 1),
        (Kind.MORE, 4),
        (Kind.END, 4),
        (Kind.LINES, 4),
    ]
