"""Dumps of guests to which a test does something: in the cache of vm-images, so that only the first run boots them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmimages import VM, DumpSet


def kept_guest(
    label: str, kernel: str, act: Callable[[VM, Path], None], formats: Sequence[str] = ("elf",), **options: Any
) -> DumpSet:
    """Dumps of `kernel`, booted with these options, after `act`, which writes what is true of it into the folder it
    gets. They are made again when the file that has `act` changes.
    """
    from vmimages import boot, dumping, fetch, paths

    files = fetch(kernel, quiet=True)

    def make(folder: Path) -> None:
        (folder / "truth").mkdir()
        with boot(kernel, quiet=True, **options) as vm:
            act(vm, folder / "truth")
            vm.stop()
            for format in formats:
                dumping.dump(vm, folder / format, format, quiet=True)
        dumping.stamp(folder, files, formats, complete=True)

    source = Path(act.__code__.co_filename).read_bytes()
    built_from = f"{hashlib.sha256(source).hexdigest()} {formats} {options}"
    place = paths.cache_root() / "dumps" / f"{kernel}-test-{label}"
    return dumping.kept(files, place, built_from, "test-dumps-lock", make, False)
