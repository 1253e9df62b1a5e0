"""The files and targets that the user, a front end or a program names; nothing is opened yet."""

from __future__ import annotations

from kplug.frozen import Frozen


class Source(Frozen):
    """The files of a kernel, and its memory where there is any. With nothing given it is the running kernel.

    `vmlinux` is a kernel file with or without debug information; `vmlinuz` the boot image, `system_map` the build's
    System.map, and `kallsyms` a saved /proc/kallsyms: what there is in place of a vmlinux or besides it. `core` is a
    vmcore (or /proc/kcore), `core_parts` the other files of one that makedumpfile split, as far as they do not lie
    beside it, `raw` the physical ranges of one that is a raw image of memory (`0-bfffffff,100000000`). `qemu` is the
    QMP socket of a guest; `vmcoreinfo` a file with the text of VMCOREINFO, for a vmcore that has none.
    `module_directories` are folders with the modules' debug files.

    Without memory `modules` place module files (`FILE@ADDR` or `FILE@.text=ADDR,.data=ADDR`), `kaslr_offset` says in
    bytes how far the kernel was moved (None: as far as the running kernel, if the vmlinux is its own), and
    `linker_script` and `link_map` are vmlinux.lds and vmlinux.map of the build. `lines` asks for source lines.
    """

    vmlinux: str | None = None
    vmlinuz: str | None = None
    system_map: str | None = None
    kallsyms: str | None = None
    core: str | None = None
    core_parts: tuple[str, ...] = ()
    raw: str | None = None
    qemu: str | None = None
    vmcoreinfo: str | None = None
    module_directories: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    kaslr_offset: int | None = None
    linker_script: str | None = None
    link_map: str | None = None
    lines: bool = False

    @property
    def has_memory(self) -> bool:
        """Whether a dump or a guest is named."""
        return self.core is not None or self.qemu is not None

    @property
    def files(self) -> bool:
        """Whether any file is named that describes a kernel without its memory."""
        named = (self.vmlinux, self.vmlinuz, self.system_map, self.kallsyms, self.linker_script, self.link_map)
        return any(each is not None for each in named) or bool(self.modules) or self.kaslr_offset is not None
