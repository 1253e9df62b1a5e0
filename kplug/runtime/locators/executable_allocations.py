"""Code in the modules' space that does not belong to a module: BPF programs, ftrace's trampolines, kprobes' copies of
instructions; and the gaps between modules.

The kernel asks in that order whether an address is text (kernel_text_address() in kernel/extable.c): image, modules,
ftrace trampolines, kprobe slots, BPF. In /proc/kallsyms these have names in brackets in place of a module's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import drgn

from kplug import model
from kplug.arch.types.memory_map import MODULES, VMALLOC, Area
from kplug.errors import TargetError
from kplug.image import layer_kinds
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.lists import list_nodes
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.vmap import vmap_areas
from kplug.runtime.modules.freed_init import FreedSection, freed_section_at
from kplug.runtime.modules.images import symbol_extent
from kplug.runtime.modules.kallsyms import NAMELESS
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.modules.struct_module import MAX_TEXT_BYTES

# A machine with a program for each container and cgroup has some ten thousand.
MAX_BPF = 1_000_000
MAX_TRAMPOLINES = 100_000
MAX_SLOT_PAGES = 100_000
MAX_PROBES = 1_000_000

_PAGE = 4096
_STATES = {0: "free", 1: "to be freed", 2: "used"}  # enum kprobe_slot_state


class Code(NamedTuple):
    """A piece of code: its owner (as in brackets in /proc/kallsyms), its name, and `[start, end)`.

    `what` describes it, `source` says how it is known.
    """

    owner: str
    name: str
    start: int
    end: int
    what: str
    source: str


class ExecutableAllocations:
    """All such code at one moment, sorted by address. `problems` are sentences on what could not be read."""

    def __init__(self, kernel: Kernel) -> None:
        self.problems: list[str] = []
        found: list[Code] = []
        readers: tuple[tuple[str, Callable[[Kernel], Iterator[Code]]], ...] = (
            ("the list of ftrace trampolines", _trampolines),
            ("the list of kprobe slots", _kprobe_pages),
            ("the list of BPF programs", _bpf),
        )
        for what, read in readers:
            try:
                with kernel.reading(what):
                    for code in read(kernel):
                        if code.start < code.end:
                            found.append(code)
            except TargetError as error:
                self.problems.append(f"{what} could not be read to its end: {error}")
        self.codes = sorted(found, key=lambda code: code.start)
        self._starts = [code.start for code in self.codes]

    def holding(self, address: int) -> Code | None:
        """The code that holds an address, or None."""
        position = bisect_right(self._starts, address) - 1
        code = self.codes[position] if position >= 0 else None
        return code if code is not None and address < code.end else None

    def neighbours(self, address: int) -> tuple[Code | None, Code | None]:
        """The code before and after an address that none holds."""
        position = bisect_right(self._starts, address)
        before = self.codes[position - 1] if position else None
        return before, self.codes[position] if position < len(self.codes) else None


@remembered(UNTIL_RESUMED)
def executable_allocations(kernel: Kernel) -> ExecutableAllocations:
    """The code outside modules, of a kernel with types; read once while it stands still."""
    return ExecutableAllocations(kernel)


def _bpf(kernel: Kernel) -> Iterator[Code]:
    """Code made by the BPF compiler: programs, trampolines, dispatchers (`struct bpf_ksym`, bfea9a8574f3, 5.8)."""
    head = kernel.symbol("bpf_kallsyms")
    if head is None:
        return
    kind, word = kernel.prog.type("struct bpf_ksym"), kernel.word
    link, start, end, name = (drgn.offsetof(kind, member) for member in ("lnode", "start", "end", "name"))
    for node in list_nodes(kernel, head, MAX_BPF):
        data = kernel.read(node - link, name + MAX_TEXT_BYTES)
        text = data[name:].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        what = "BPF program" if text.startswith("bpf_prog_") else "made by the BPF compiler"
        for made in ("trampoline", "dispatcher"):
            if text.startswith(f"bpf_{made}_"):
                what = f"BPF {made}"
        yield Code("bpf", text, word.at(data, start), word.at(data, end), what, "bpf_kallsyms")


def _trampolines(kernel: Kernel) -> Iterator[Code]:
    """ftrace's own trampolines, one for each tracer that has some (`ftrace_ops_trampoline_list`, fc0ea795f53c, 5.9)."""
    head = kernel.symbol("ftrace_ops_trampoline_list")
    if head is None:
        return
    kind, word = kernel.prog.type("struct ftrace_ops"), kernel.word
    link, start, size, function = (
        drgn.offsetof(kind, member) for member in ("list", "trampoline", "trampoline_size", "func")
    )
    for node in list_nodes(kernel, head, MAX_TRAMPOLINES):
        data = kernel.read(node - link, kind.size or 0)
        address = word.at(data, start)
        what = "ftrace trampoline"
        called = symbol_at(kernel, word.at(data, function))
        if called is not None:
            what += f" that calls {called}"
        yield Code(
            "__builtin__ftrace",
            "ftrace_trampoline",
            address,
            address + word.at(data, size),
            what,
            "ftrace_ops_trampoline_list",
        )


def _kprobe_pages(kernel: Kernel) -> Iterator[Code]:
    """The pages with kprobes' copies of the instructions that they replaced."""
    for variable in ("kprobe_insn_slots", "kprobe_optinsn_slots"):
        cache = kernel.symbol(variable)
        if cache is None:
            continue
        kind, page = kernel.prog.type("struct kprobe_insn_cache"), kernel.prog.type("struct kprobe_insn_page")
        link, instructions = drgn.offsetof(page, "list"), drgn.offsetof(page, "insns")
        name = "kprobe_insn_page" if variable == "kprobe_insn_slots" else "kprobe_optinsn_page"
        for node in list_nodes(kernel, cache + drgn.offsetof(kind, "pages"), MAX_SLOT_PAGES):
            start = kernel.read_word(node - link + instructions)
            yield Code("__builtin__kprobes", name, start, start + _PAGE, "kprobe instruction slots", variable)


@remembered(UNTIL_RESUMED)
def probes(kernel: Kernel) -> dict[int, str]:
    """The origin of the copy in each used slot of `kprobe_insn_slots`: `do_sys_openat2+0x0`, by the slot's address."""

    def read() -> dict[int, str]:
        found: dict[int, str] = {}
        table, word = kernel.prog["kprobe_table"], kernel.word
        kind = kernel.prog.type("struct kprobe")
        link, place, slot = (drgn.offsetof(kind, member) for member in ("hlist", "addr", "ainsn.insn"))
        for bucket in range(table.type_.length or 0):
            node = kernel.read_word((table.address_ or 0) + word.size * bucket)
            seen: set[int] = set()
            while node and node not in seen and len(found) < MAX_PROBES:
                seen.add(node)
                data = kernel.read(node - link, kind.size or 0)
                probed = word.at(data, place)
                found.setdefault(word.at(data, slot), symbol_at(kernel, probed) or f"{probed:#x}")
                node = word.at(data, link)
        return found

    try:
        with kernel.reading("the kprobes"):
            return read()
    except TargetError:
        return {}


def symbol_at(kernel: Kernel, address: int) -> str | None:
    """The symbol and offset of an address of code, followed by `[module]`; None if none is known."""
    found = symbol_extent(kernel, address)
    if found is None:
        return None
    placed, extent = found
    offset = placed.placement.link(address) - extent.start
    words = f"{extent.symbol.name}+{offset:#x}" if offset else extent.symbol.name
    return f"{words} [{placed.image.name}]" if placed.image.is_module else words


class ExecutableAllocationLocator:
    """Code outside modules, and the gaps between modules. Comes after the vmap areas, and names what these do not."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        kernel = self._kernel
        if not kernel.word.is_kernel(address) or not kernel.has_types or kernel.image is None:
            return
        space = space_of(kernel)
        area = space.area_at(address) if space is not None else None
        # Without a modules area of its own, such code is in the vmalloc area, like much else.
        if area is None or area.name not in (MODULES, VMALLOC, "BPF JIT"):
            return
        if modules_of(kernel).holding(address) is not None:
            return
        known = executable_allocations(kernel)
        code = known.holding(address)
        if code is not None:
            yield from _code_layers(code)
            yield from self._slot(code, address)
            return
        freed = freed_init(kernel, address)
        if freed is not None:
            yield from _freed_layers(freed)
        elif area.name == MODULES or self._is_guard_of_module(address):
            yield from self._gap(known, address, area)

    def _is_guard_of_module(self, address: int) -> bool:
        """Whether an address is in the guard page after memory of a module, wherever modules are."""
        areas = vmap_areas(self._kernel)
        vmap = areas.at(address)
        return (
            vmap is not None
            and areas.is_guard(vmap, address)
            and modules_of(self._kernel).holding(vmap.start) is not None
        )

    def _slot(self, code: Code, address: int) -> Iterator[Layer]:
        """The probe whose instruction is at an address in the kprobe slots, as a narrower symbol."""
        if code.source != "kprobe_insn_slots":
            return
        kernel = self._kernel
        with kernel.reading("the size of kprobe slots"):
            cache = kernel.prog["kprobe_insn_slots"]
            size = cache.insn_size.value_() * drgn.sizeof(kernel.prog.type("kprobe_opcode_t"))
        start = address - (address - code.start) % size if 0 < size <= _PAGE else code.start
        probed = probes(kernel).get(start)
        if probed is not None:
            details = {**_symbol_details(size), "probe": probed}
            yield Layer(model.SYMBOL, "kprobe_insn_slot", start, start + size, "kprobe_table", details)

    def _gap(self, known: ExecutableAllocations, address: int, area: Area) -> Iterator[Layer]:
        """The gap that holds an address in the modules area, with its two neighbours."""
        kernel = self._kernel
        areas = vmap_areas(kernel)
        vmap = areas.at(address)
        before, after = self._around(known, address)
        if vmap is not None and not vmap.lazy and not areas.is_guard(vmap, address):
            # The area has an owner and is named; which part of it is code is known if there is code in it.
            before = before if before is not None and before.start >= vmap.start else None
            after = after if after is not None and after.end <= vmap.end else None
            if before is None and after is None:
                return
            edges = _Neighbour("start of this memory", 0, vmap.start), _Neighbour("end of this memory", vmap.end, 0)
            why = "memory for code, of which this is not used"
        else:
            edges = _Neighbour(f"start of {area.name}", 0, area.start), _Neighbour(f"end of {area.name}", area.end, 0)
            why = "no module, BPF program or trampoline is here"
            if vmap is not None and vmap.lazy:
                why = "freed, and not yet given back: the memory of a module or of other code that is gone"
            why += "".join(f"; {problem}" for problem in known.problems) + self._unloaded_words()
        before, after = before or edges[0], after or edges[1]
        details = {"after": before.name, "before": after.name, "why": why}
        yield Layer(model.GAP, "between modules", before.end, after.start, "the kernel's lists", details)

    def _unloaded_words(self) -> str:
        """The unloaded modules, which may have been here: the kernel does not record where each was."""
        try:
            gone = modules_of(self._kernel).unloaded
        except TargetError:
            return ""
        return f"; unloaded: {', '.join(each.name for each in gone[:8])}" if gone else ""

    def _around(self, known: ExecutableAllocations, address: int) -> tuple[_Neighbour | None, _Neighbour | None]:
        """The nearest things before and after."""
        modules, codes = modules_of(self._kernel).neighbours(address), known.neighbours(address)
        sides: list[list[_Neighbour]] = [[], []]
        for side, held, code in zip(sides, modules, codes):
            if held is not None:
                part, module = held
                side.append(_Neighbour(f"{module.name} ({part.type})", part.start, part.end))
            if code is not None:
                side.append(_Neighbour(f"{code.name} [{code.owner}]", code.start, code.end))
        befores, afters = sides
        return max(befores, key=lambda each: each.end, default=None), min(
            afters, key=lambda each: each.start, default=None
        )


def freed_init(kernel: Kernel, address: int) -> FreedSection | None:
    """Whose init memory was at an address, if nobody is known to have the memory now."""
    freed = freed_section_at(kernel, address)
    if freed is None:
        return None
    areas = vmap_areas(kernel)
    if areas.is_free(address):
        return freed
    # "execmem: add support for cache of large ROX pages" (6.13): the area that code is in stays, and has other code.
    vmap = areas.at(address)
    assert vmap is not None
    parts = (each[0] for each in modules_of(kernel).neighbours(address) if each is not None)
    in_cache = any(vmap.start <= part.start and part.end <= vmap.end for part in parts)
    used = modules_of(kernel).holding(address) or executable_allocations(kernel).holding(address)
    return freed if in_cache and not used and not areas.is_guard(vmap, address) else None


class _Neighbour(NamedTuple):
    """A neighbour of a gap: its name and `[start, end)`."""

    name: str
    start: int
    end: int


def _code_layers(code: Code) -> tuple[Layer, ...]:
    owner: dict[str, Any] = {"release": None, "build_id": None, "slide": None, "path": None, "what": code.what}
    details = _symbol_details(code.end - code.start)
    return (
        Layer(model.MODULE, code.owner, None, None, code.source, owner),
        Layer(model.SYMBOL, code.name, code.start, code.end, code.source, details),
    )


def _freed_layers(section: FreedSection) -> tuple[Layer, ...]:
    """The module and the section that had the memory; no symbol, since the kernel drops those of init memory."""
    owner = {"memory": "init", "freed": True, "before": list(section.before) or None, "class": model.INIT}
    details = {"type": None, "flags": "", "link_start": None}
    source = "section addresses that the module keeps"
    return (
        Layer(model.MODULE, section.module.name, None, None, source, owner),
        Layer(model.SECTION, section.name or NAMELESS, section.start, section.end, source, details),
    )


def _symbol_details(size: int) -> dict[str, Any]:
    return {"type": "t", "binding": None, "size": size, "sizeless": False, "aliases": [], "class": model.TEXT}


locates(layer_kinds.MODULE, lambda kernel, user: ExecutableAllocationLocator(kernel))
