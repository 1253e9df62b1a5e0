"""The stacks of a fake kernel's CPUs: arch/x86/include/asm/cpu_entry_area.h, arch/x86/kernel/irq_64.c; arm64's
arch/arm64/kernel/irq.c and traps.c (6.12)."""

from __future__ import annotations

from support.fake_kernel import CPUS, FakeKernel
from support.fake_machines import PAGE

X86_ENTRY_AREAS = 0xFFFFFE0000001000
ENTRY_AREA_SIZE, ESTACKS = 0x8000, 0x3000
IRQ_STACK = 0x4000


class FakeX86Stacks:
    """IRQ stacks and those in the CPU entry areas: a guard page, the #DF stack, a guard page, the NMI stack."""

    def __init__(self, fake: FakeKernel) -> None:
        fake.struct("irq_stack", IRQ_STACK, stack=("char [16384]", 0))
        pointer = fake.percpu("hardirq_stack_ptr", "void *")
        fake.struct("entry_stack", PAGE, words=("unsigned long [64]", 0))
        fake.struct(
            "cea_exception_stacks", 4 * PAGE, DF_stack_guard=("char [4096]", 0), DF_stack=("char [4096]", PAGE),
            NMI_stack_guard=("char [4096]", 2 * PAGE), NMI_stack=("char [4096]", 3 * PAGE),
        )  # fmt: skip
        fake.struct(
            "cpu_entry_area", ENTRY_AREA_SIZE, gdt=("char [4096]", 0), entry_stack_page=("struct entry_stack", PAGE),
            tss=("char [4096]", 2 * PAGE), estacks=("struct cea_exception_stacks", ESTACKS),
        )  # fmt: skip
        stacks = fake.percpu("cea_exception_stacks", "struct cea_exception_stacks *")
        self.irq, self.areas = [], []
        for cpu in range(CPUS):
            start = fake.take(IRQ_STACK + PAGE, IRQ_STACK)
            self.irq.append(start)
            fake.words(fake.cpu_area(cpu) + pointer, start + IRQ_STACK - 8)
            area = X86_ENTRY_AREAS + cpu * ENTRY_AREA_SIZE
            self.areas.append(area)
            fake.words(fake.cpu_area(cpu) + stacks, area + ESTACKS)


class FakeArmStacks:
    """IRQ stacks, found by a pointer of each CPU, and overflow stacks, which are per-CPU variables."""

    def __init__(self, fake: FakeKernel) -> None:
        pointer = fake.percpu("irq_stack_ptr", "unsigned long *")
        self.overflow_offset = fake.percpu("overflow_stack", "unsigned long [64]")
        self.irq = []
        for cpu in range(CPUS):
            start = fake.machine.vmalloc + 0x400000 + cpu * 0x10000
            self.irq.append(start)
            fake.words(fake.cpu_area(cpu) + pointer, start)
