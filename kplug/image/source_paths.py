"""Paths of source files as the kernel's developers write them: from the top of the source tree.

A compiler records paths relative to the folder it ran in, which is the top of the tree; an assembler, and a build in
a folder of its own (make O=), absolute ones, of a machine that nobody has.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache

# The folders at the top of the tree that have code.
_TOP = (
    "arch|block|certs|crypto|drivers|fs|include|init|io_uring|ipc|kernel|lib|mm|net|rust|samples|scripts|security|sound"
    "|tools|usr|virt"
)
# The folders of trees, as distributions and kernel.org name them: linux-6.1.192, linux-headers-6.1.0-57-common;
# Debian builds in debian/build/build_amd64_none_amd64.
_TREES = tuple(
    re.compile(rf"/(?:[^/]+/)*?{tree}/(?:\./)?(?=(?:{_TOP})/)")
    for tree in (r"linux-(?:[a-z]+-)?[0-9][^/]*", r"debian/build/[^/]+")
)


@lru_cache(maxsize=4096)
def in_tree(path: str) -> str:
    """The path from the top of the kernel's source tree; an absolute path of another kind is left as it is."""
    if path.startswith("/"):
        for tree in _TREES:
            match = tree.match(path)
            if match is not None:
                path = path[match.end() :]
                break
    if "/../" in path or path.startswith("./"):
        path = posixpath.normpath(path)
    return path
