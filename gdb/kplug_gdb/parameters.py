"""`set kplug ...` and `show kplug ...`."""

from __future__ import annotations

import os
import re
from typing import Any

import gdb
from kplug.arch.types.word import WIDEST_MASK
from kplug_gdb import commands
from kplug_gdb.settings import SETTINGS, USUAL_PREFIX


class _Prefix(gdb.Command):
    """Settings of kplug, which explains kernel addresses."""

    def __init__(self, name: str) -> None:
        super().__init__(name, gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)
        self.name = name

    def invoke(self, argument: str, from_tty: bool) -> None:
        if argument:
            raise gdb.GdbError(
                f"{self.name}: no setting {argument!r}; there are: {', '.join(p.name for p in PARAMETERS)}"
            )
        for kind in PARAMETERS:
            gdb.execute(f"show kplug {kind.name}")


class _KParameter(gdb.Parameter):
    """A setting whose value, once checked, goes to `SETTINGS`, there named `field` if not as here. `initial` is gdb's
    form of the default, `former` the value from before the script was sourced again."""

    name = ""
    field = ""
    kind = gdb.PARAM_STRING
    initial: Any = None
    choices: tuple[str, ...] = ()

    def __init__(self, former: Any) -> None:
        if self.choices:
            super().__init__(f"kplug {self.name}", gdb.COMMAND_DATA, self.kind, self.choices)
        else:
            super().__init__(f"kplug {self.name}", gdb.COMMAND_DATA, self.kind)
        self.value = self._good = self.initial
        self._take(self.initial)
        if former is not None:
            self.value = former
            self.get_set_string()

    def get_set_string(self) -> str:
        try:
            self._take(self.value)
        except gdb.GdbError:
            self.value = self._good
            raise
        self._good = self.value
        return ""

    def get_show_string(self, value: str) -> str:
        return f"{self.show_doc.rstrip('.')}: {value or 'auto'}."

    def _take(self, value: Any) -> None:
        SETTINGS.change(self.field or self.name.replace("-", "_"), self.meant(value))

    def meant(self, value: Any) -> object:
        """A gdb value as it is stored in SETTINGS. GdbError if it is invalid."""
        return str(value)


def _former(name: str) -> Any:
    """The value from before the script was sourced again; None at the first time."""
    try:
        return gdb.parameter(name)
    except RuntimeError:
        return None


class _File(_KParameter):
    """A file's name, or nothing."""

    kind = gdb.PARAM_OPTIONAL_FILENAME
    initial = ""

    def meant(self, value: Any) -> object:
        path = os.path.expanduser(value) if value else None
        if path is not None and not os.path.isfile(path):
            raise gdb.GdbError(f"{value}: no such file")
        return path


class Vmlinux(_File):
    """The kernel's ELF file, if gdb has not loaded it; empty for gdb's own."""

    name = "vmlinux"
    set_doc = "Set the kernel's ELF file"
    show_doc = "The kernel's ELF file"


class Vmlinuz(_File):
    """The boot image of the kernel (vmlinuz, bzImage, Image), used if there is no vmlinux."""

    name = "vmlinuz"
    set_doc = "Set the kernel's boot image, used if there is no vmlinux"
    show_doc = "The kernel's boot image, used if there is no vmlinux"

    def get_show_string(self, value: str) -> str:
        return f"{self.show_doc}: {value or 'none'}."


class SystemMap(_File):
    """The kernel's System.map, used if there is no vmlinux."""

    name = "system-map"
    set_doc = "Set the kernel's System.map, used if there is no vmlinux"
    show_doc = "The kernel's System.map, used if there is no vmlinux"

    def get_show_string(self, value: str) -> str:
        return f"{self.show_doc}: {value or 'none'}."


class Kallsyms(_KParameter):
    """Whether the kernel's memory is searched for its symbols if no file has them: on, off, or auto (not if that would
    take minutes).
    """

    name = "kallsyms"
    kind = gdb.PARAM_ENUM
    initial = "auto"
    choices = ("auto", "on", "off")
    set_doc = "Set whether symbols are sought in the kernel's memory if no file has them"
    show_doc = "Whether symbols are sought in the kernel's memory if no file has them"


class Slide(_KParameter):
    """How far the kernel was moved: auto finds it in the target, none means not at all, or a number of bytes."""

    name = "slide"
    field = "kaslr_offset"
    initial = "auto"
    set_doc = "Set how far the kernel was moved: auto, none, or a number of bytes"
    show_doc = "How far the kernel was moved"

    def meant(self, value: Any) -> object:
        text = str(value or "auto").strip()
        if text == "auto":
            return None
        if text == "none":
            return 0
        try:
            return int(text, 0) & WIDEST_MASK
        except ValueError:
            raise gdb.GdbError(f"{text}: must be auto, none or a number of bytes (0x8a00000)") from None


class Check(_KParameter):
    """Whether the vmlinux must be the target's: its banner and build ID are compared with memory."""

    name = "check"
    kind = gdb.PARAM_BOOLEAN
    initial = True
    set_doc = "Set whether the vmlinux is checked against the target's memory"
    show_doc = "Whether the vmlinux is checked against the target's memory"

    def get_show_string(self, value: str) -> str:
        return f"{self.show_doc}: {value}."

    def meant(self, value: Any) -> object:
        return bool(value)


class Lines(_KParameter):
    """Whether answers have the source line, read from gdb's debug information."""

    name = "lines"
    kind = gdb.PARAM_BOOLEAN
    initial = True
    set_doc = "Set whether answers have the source line"
    show_doc = "Whether answers have the source line"

    def meant(self, value: Any) -> object:
        return bool(value)


class Color(_KParameter):
    """Colours: on, off, or auto, which follows gdb's `style enabled` on a terminal."""

    name = "color"
    kind = gdb.PARAM_ENUM
    initial = "auto"
    choices = ("auto", "on", "off")
    set_doc = "Set whether answers are coloured"
    show_doc = "Whether answers are coloured"


class Drgn(_KParameter):
    """Whether the kernel's own records are read, through drgn: off, on, or auto (for cores and QEMU's guests)."""

    name = "drgn"
    kind = gdb.PARAM_ENUM
    initial = "auto"
    choices = ("auto", "on", "off")
    set_doc = "Set whether modules, slab objects, vmalloc, pages and tasks are read through drgn"
    show_doc = "Whether modules, slab objects, vmalloc, pages and tasks are read through drgn"


class Prefix(_KParameter):
    """What the names of kplug's commands and functions begin with: k, or another word if another plugin in gdb has
    commands of these names. The command kplug, and its settings, keep their names.
    """

    name = "prefix"
    kind = gdb.PARAM_STRING_NOESCAPE
    initial = USUAL_PREFIX
    set_doc = "Set what the names of kplug's commands begin with"
    show_doc = "What the names of kplug's commands begin with"

    def get_set_string(self) -> str:
        super().get_set_string()
        commands.rename()
        return ""

    def meant(self, value: Any) -> object:
        prefix = str(value or USUAL_PREFIX).strip()
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
            raise gdb.GdbError(f"{prefix}: must be letters, digits and _ only, with no digit at the start")
        return prefix


PARAMETERS = (Vmlinux, Vmlinuz, SystemMap, Kallsyms, Slide, Check, Lines, Color, Drgn, Prefix)


def define() -> None:
    """Register all of them. The values of an earlier loading are kept."""
    kept = {kind: _former(f"kplug {kind.name}") for kind in PARAMETERS}
    _Prefix("set kplug")
    _Prefix("show kplug")
    for kind in PARAMETERS:
        kind(kept[kind])
