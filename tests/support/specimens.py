"""Dumps of guests with a module that is built against the kernel's header packages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from vmimages.errors import HeadersGone


@contextlib.contextmanager
def headers_needed() -> Iterator[None]:
    """A cache that is older than the mirror has kernels whose header packages are nowhere: `fetch --refresh` helps."""
    try:
        yield
    except HeadersGone as error:
        pytest.skip(str(error))
