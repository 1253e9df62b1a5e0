"""A log that is followed: what is cut or replaced while nobody looks is read from its beginning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kplug.shell import log_input

LONG = b"[    1.0] the first text of the log\n"


class NoMoreError(Exception):
    """Nothing is to come."""


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bytes]]:
    """What `follower` reads of a log, while one thing after another happens to it at its end."""
    path = tmp_path / "log"
    path.write_bytes(LONG)
    descriptor = log_input.open_log(str(path))

    def read(*happens: Callable[[Path], object]) -> bytes:
        coming = iter(happens)

        def sleep(_: float) -> None:
            try:
                next(coming)(path)
            except StopIteration:
                raise NoMoreError from None

        monkeypatch.setattr(log_input.time, "sleep", sleep)
        following, found = log_input.follower(descriptor, str(path)), b""
        try:
            while True:
                found += following()
        except NoMoreError:
            return found

    yield read
    os.close(descriptor)


def _append(data: bytes) -> Callable[[Path], object]:
    def happen(path: Path) -> None:
        with path.open("ab") as log:
            log.write(data)

    return happen


def _rewrite(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)  # the same file


def _move(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def test_what_is_added_is_read(follow: Callable[..., bytes]) -> None:
    assert follow(_append(b"more\n"), _append(b"and more\n")) == LONG + b"more\nand more\n"


@pytest.mark.parametrize(
    "anew", [b"short\n", LONG[:-6] + b"disk\n", b"a longer text than before, whose beginning counts\n"]
)
def test_what_is_written_anew_is_read_from_its_beginning(follow: Callable[..., bytes], anew: bytes) -> None:
    assert follow(_rewrite(anew), _append(b"more\n")) == LONG + anew + b"more\n"


def test_a_file_that_was_cut_twice(follow: Callable[..., bytes]) -> None:
    assert follow(_rewrite(b""), _append(b"a\n"), _rewrite(b""), _append(b"b\n")) == LONG + b"a\nb\n"


def test_what_replaces_the_file_is_read_after_the_rest_of_that(follow: Callable[..., bytes]) -> None:
    def rotate(path: Path) -> None:
        _append(b"the rest\n")(path)
        _move(path)
        path.write_bytes(b"new\n")

    assert follow(rotate, _append(b"newer\n")) == LONG + b"the rest\nnew\nnewer\n"


def test_the_file_may_be_away_for_a_while(follow: Callable[..., bytes]) -> None:
    assert follow(_move, _rewrite(b"new\n")) == LONG + b"new\n"
