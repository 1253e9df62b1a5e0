"""Code of no module in a fake kernel, and modules by their memory alone, without what no test asks of.

include/linux/filter.h, ftrace.h, kprobes.h and module.h of 6.12.
"""

from __future__ import annotations

from collections.abc import Mapping

from support.fake_kernel import FakeKernel

SLOT = 16  # bytes of a kprobe's copy: MAX_INSN_SIZE on x86_64


class FakeCode:
    """Empty lists of BPF programs, ftrace trampolines, kprobe slots and kprobes."""

    def __init__(self, fake: FakeKernel) -> None:
        self.fake = fake
        fake.struct(
            "bpf_ksym", 544, start=("unsigned long", 0), end=("unsigned long", 8), name=("char [512]", 16),
            lnode=("struct list_head", 528),
        )  # fmt: skip
        fake.struct(
            "ftrace_ops", 64, func=("void *", 0), list=("struct list_head", 16), trampoline=("unsigned long", 32),
            trampoline_size=("unsigned long", 40),
        )  # fmt: skip
        fake.struct("kprobe_insn_page", 32, list=("struct list_head", 0), insns=("void *", 16))
        fake.struct("kprobe_insn_cache", 48, pages=("struct list_head", 16), insn_size=("unsigned long", 32))
        fake.typedef("kprobe_opcode_t", "unsigned char")
        fake.struct("hlist_node", 16, next=("struct hlist_node *", 0), pprev=("void *", 8))
        fake.struct("hlist_head", 8, first=("struct hlist_node *", 0))
        fake.struct("arch_specific_insn", 8, insn=("void *", 0))
        fake.struct("kprobe", 48, hlist=("struct hlist_node", 0), addr=("void *", 16),
                    ainsn=("struct arch_specific_insn", 24))  # fmt: skip
        self.bpf = self._head("bpf_kallsyms")
        self.trampolines = self._head("ftrace_ops_trampoline_list")
        cache = fake.variable("kprobe_insn_slots", "struct kprobe_insn_cache")
        fake.put("kprobe_insn_cache", cache, {"insn_size": SLOT})
        self.slot_pages = cache + 16
        fake.words(self.slot_pages, self.slot_pages, self.slot_pages)
        self.table = fake.variable("kprobe_table", "struct hlist_head [4]")

    def bpf_program(self, name: str, start: int, end: int) -> int:
        place = self.fake.make("bpf_ksym", {"start": start, "end": end, "name": name.encode()})
        self._add(self.bpf, place + 528)
        return place

    def trampoline(self, start: int, size: int, function: int) -> int:
        values = {"func": function, "trampoline": start, "trampoline_size": size}
        place = self.fake.make("ftrace_ops", values)
        self._add(self.trampolines, place + 16)
        return place

    def slots(self, page: int) -> None:
        """A page with copies of instructions."""
        self._add(self.slot_pages, self.fake.make("kprobe_insn_page", {"insns": page}))

    def probe(self, address: int, slot: int) -> int:
        place = self.fake.make("kprobe", {"addr": address, "ainsn.insn": slot})
        self.fake.words(self.table + 8, place)
        return place

    def module(self, name: str, start: int, size: int, sections: Mapping[str, int] | None = None) -> int:
        """A module that has text and nothing else, and the places of `sections`."""
        fake, listed = self.fake, sections or {}
        members: dict[str, int | bytes] = {"name": name.encode(), "mem[0].base": start, "mem[0].size": size}
        if listed:
            attributes = members["sect_attrs"] = fake.take(8 + 16 * len(listed))
            fake.words(attributes, len(listed))
            for number, (section, place) in enumerate(listed.items()):
                fake.words(attributes + 8 + 16 * number, fake.text(section), place)
        place = self.fake.make("module", members)
        self._add(self.fake.modules, place + 8)
        return place

    def _head(self, name: str) -> int:
        place = self.fake.variable(name, "struct list_head")
        self.fake.words(place, place, place)
        return place

    def _add(self, head: int, node: int) -> None:
        self.fake.words(node, int.from_bytes(self.fake.prog.read(head, 8), "little"), head)
        self.fake.words(head, node)
