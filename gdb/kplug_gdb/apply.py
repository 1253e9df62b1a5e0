"""`kaslr --apply`: moves gdb's own symbols to where the kernel is, so that bt, break and p work."""

from __future__ import annotations

import gdb
from kplug.commands.status import KASLR
from kplug.errors import InputError, UsageError
from kplug.image.elf.sections import PERCPU_SECTION
from kplug_gdb import linked, objfiles
from kplug_gdb.host import HOST
from kplug_gdb.names import shown
from kplug_gdb.reading import has_process


def apply() -> str:
    """Replace gdb's symbols of the vmlinux by moved ones; returns the message for the user.

    `symbol-file -o` would move x86_64's per-CPU section too, whose addresses are offsets and do not move (up to 6.14);
    `add-symbol-file -o OFFSET -s SECTION ADDRESS` keeps it where it is.
    """
    name, session = f"{shown(KASLR)} --apply", HOST.session()
    main = session.main
    applied = linked.applied_offset(main.image) if main is not None else None
    if main is None or not (has_process() or applied):
        raise UsageError(f"{name}: there is no target whose kernel could have moved")
    doubts = HOST.finding().warnings if has_process() and not main.placement.kaslr_offset else ()
    if doubts:
        raise UsageError(f"{name}: {doubts[0]}")
    path, placement = main.image.path, main.placement
    if not main.image.on_disk:
        raise UsageError(
            f"{name}: gdb has no vmlinux whose symbols could be moved (`kplug extract VMLINUZ --symbols` at a "
            "shell makes one of a boot image)"
        )
    if applied == placement.kaslr_offset:
        message = f"gdb's symbols are at {placement.kaslr_offset_text} already"
        return "\n".join((message, *(f"warning: {warning}" for warning in session.warnings)))
    quoted = path.replace("\\", "\\\\").replace('"', '\\"')
    command = f'add-symbol-file "{quoted}" -o {placement.kaslr_offset:#x}'
    if placement.unmoved is not None:
        command += f" -s {PERCPU_SECTION} {placement.unmoved.start:#x}"
    confirm = gdb.parameter("confirm")
    gdb.execute("set confirm off", to_string=True)
    try:
        _remove(path, applied is not None)
        gdb.execute(command, to_string=True)
    except gdb.error as error:
        raise InputError(f"{name}: gdb does not take {path}: {error}") from None
    finally:
        gdb.execute(f"set confirm {'on' if confirm else 'off'}", to_string=True)
    if linked.applied_offset(main.image) != placement.kaslr_offset:
        raise InputError(f"{name}: gdb did not move the symbols of {path}")
    message = f"gdb's symbols of {path} moved by {placement.kaslr_offset_text}"
    return "\n".join((message, *(f"warning: {warning}" for warning in session.warnings)))


def _remove(path: str, loaded: bool) -> None:
    """Remove the symbols that are in the wrong place: the program's, or those of an earlier add-symbol-file."""
    if not loaded:
        return
    space = gdb.current_progspace()
    if space is not None and space.filename:
        gdb.execute("symbol-file", to_string=True)
    for objfile in gdb.objfiles():
        if objfile.is_valid() and objfile.owner is None and objfile.filename == path:
            address = _text_address(path)
            if address is not None:
                gdb.execute(f"remove-symbol-file -a {address:#x}", to_string=True)


def _text_address(path: str) -> int | None:
    """The address of the file's first code section in gdb."""
    return next((address for found, name, address in objfiles.sections(".text") if found == path), None)
