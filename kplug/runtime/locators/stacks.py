"""Stacks: the stack that holds an address, its owner, and the guard page below it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import drgn

from kplug.arch.registry import named
from kplug.arch.types.record import VariableStack
from kplug.errors import TargetError
from kplug.kinds import Kind, before_range, name_and_offset, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import try_read
from kplug.memory.thread_size import thread_size
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import owned_address
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.tasks import Task, is_data, tasks_of
from kplug.runtime.locators.vmap import vmap_areas
from kplug.runtime.tables.translation import is_zero_filled, page_size_of, page_tables
from kplug.runtime.threads.selection import Selection
from kplug.runtime.threads.stack_sides import Side, side_on_cpu_stack, side_on_task_stack
from kplug.target import StackBounds

SOURCE = "tasks and per-CPU stacks"


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = layer.name
    if details.get("side") is not None:
        why = f"sp {details['sp']}" if details["sp"] is not None else "the task runs in user mode"
        words += f"  {details['side']} ({why})"
    if details.get("frame") is not None:
        words += f"  frame #{details['frame']['number']} {details['frame']['function']}"
    if details.get("end_magic") is not None:
        words += "  STACK_END_MAGIC" if details["end_magic"] else "  STACK_END_MAGIC is overwritten: it overflowed"
    if details.get("depth") is not None:
        words += f"  depth {details['depth']:#x}"
    return before_range(words, layer), True


KIND = register(
    Kind(
        "stack",
        1000,
        {
            "owner": "(`task`, `irq`, an exception's name, ...)",
            "cpu": "",
            "pid": "",
            "comm": "",
            "depth": "(bytes from the top; `null` above it)",
            "guard": "(the address is in a guard page)",
            "past": "(of a guard page: how many bytes past the stack)",
            "side": "(`live`: frames in use are there; `dead`: what ended calls left; `null` where not known)",
            "sp": "(the stack pointer that says so; `null` in user mode)",
            "frame": "(`number` and `function` of the frame that has the address)",
            "end_magic": "(in the lowest word: whether it is STACK_END_MAGIC still)",
        },
        words=_words,
        phrase=lambda layer, offset: layer.name if layer.details["guard"] else name_and_offset(layer, offset),
        fills_gaps=True,  # its guard page is not memory of the owner
    )
)


_END_MAGIC = 0x57AC6E9D  # STACK_END_MAGIC, include/uapi/linux/magic.h


class Stack(NamedTuple):
    """A stack, `[start, end)`, and the size of the guard page below it (0: there is none)."""

    start: int
    end: int
    owner: str
    name: str
    cpu: int | None
    task: Task | None
    guard: int


class Stacks:
    """All stacks at one moment, sorted. `problem` says what could not be read, None if everything was."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        tasks = tasks_of(kernel)
        self.problem = tasks.problem
        found: dict[int, Stack] = {}
        for make in (self._of_tasks, self._of_exceptions, self._of_interrupts, self._cached):
            try:
                with kernel.reading("the stacks"):
                    for stack in make():
                        found.setdefault(stack.start, stack)
            except TargetError as error:
                self.problem = str(error)
        self.stacks = [found[start] for start in sorted(found)]
        self._starts = [stack.start for stack in self.stacks]

    @property
    def _task_stack_size(self) -> int:
        return thread_size_of(self._kernel)

    def _of_tasks(self) -> Iterator[Stack]:
        size = self._task_stack_size
        for task in tasks_of(self._kernel).tasks:
            if task.stack:
                name = f"stack of {task.name}"
                guard = self._guard_of(task.stack)
                yield Stack(task.stack, task.stack + size, "task", name, task.cpu, task, guard)

    def _guard_of(self, start: int) -> int:
        """The size of the guard page below a stack, if it is in a vmap area (CONFIG_VMAP_STACK)."""
        return page_size_of(self._kernel) if vmap_areas(self._kernel).at(start) is not None else 0

    def _cached(self) -> Iterator[Stack]:
        """The stacks of ended tasks that each CPU keeps for new ones."""
        prog, size = self._kernel.prog, self._task_stack_size
        try:
            cached = prog["cached_stacks"]
        except LookupError:
            return
        with self._kernel.reading("the cached stacks"):
            for cpu in possible_cpus(self._kernel):
                for vm in helpers.per_cpu(cached, cpu):
                    if vm:
                        start = vm.addr.value_()
                        yield Stack(start, start + size, "none", f"unused stack, kept by CPU {cpu}", cpu, None, 0)

    def _of_interrupts(self) -> Iterator[Stack]:
        declared = named(self._kernel.machine).interrupt_stacks
        if declared is None:
            return
        for cpu in possible_cpus(self._kernel):
            with self._kernel.reading("the IRQ stacks"):
                size = self._task_stack_size
                if declared.type is not None:
                    size = self._kernel.prog.type(declared.type).size or 0
                place = self._interrupt_pointer(declared.pointers, cpu)
                start = place + self._kernel.word.size - size if place and declared.at_top else place
            if start:
                yield Stack(start, start + size, "irq", f"IRQ stack of CPU {cpu}", cpu, None, self._guard_of(start))

    def _interrupt_pointer(self, names: tuple[str, ...], cpu: int) -> int:
        """The value of the first of these per-CPU variables, or members of them, that the kernel has. KeyError."""
        *newer, oldest = names
        for name in newer:
            with suppress(KeyError):
                return self._per_cpu_value(name, cpu)
        return self._per_cpu_value(oldest, cpu)

    def _per_cpu_value(self, name: str, cpu: int) -> int:
        variable, _, member = name.partition(".")
        found = helpers.per_cpu(self._kernel.prog[variable], cpu)
        return int((found.member_(member) if member else found).value_())

    def _of_exceptions(self) -> Iterator[Stack]:
        architecture = named(self._kernel.machine)
        if architecture.entry_area_stacks:
            yield from self._in_entry_areas(architecture.entry_area_stacks)
        if architecture.variable_stacks:
            yield from self._in_variables(architecture.variable_stacks)

    def _in_variables(self, declared: Sequence[VariableStack]) -> Iterator[Stack]:
        """The stacks that are per-CPU variables, or that one points to; a kernel may be built without."""
        with self._kernel.reading("the exception stacks"):
            for cpu in possible_cpus(self._kernel):
                for each in declared:
                    with suppress(KeyError):
                        variable = helpers.per_cpu(self._of_the_kernel(each.variable), cpu)
                        if each.is_pointer:
                            start, size = variable.value_(), self._task_stack_size
                        else:
                            start, size = variable.address_of_().value_(), drgn.sizeof(variable)
                        if start:
                            words = f"{each.words} stack of CPU {cpu}"
                            yield Stack(start, start + size, each.owner, words, cpu, None, self._guard_of(start))

    def _of_the_kernel(self, name: str) -> drgn.Object:
        """The variable of that name at its symbol's address. KVM's code for EL2 may have another one in the vmlinux,
        with a prefix in its symbol but not in DWARF (arch/arm64/kvm/hyp/nvhe, since 6.0). KeyError.
        """
        found, address = self._kernel.prog[name], self._kernel.symbol(name)
        return found if address is None else drgn.Object(self._kernel.prog, found.type_, address=address)

    def _in_entry_areas(self, names: Mapping[str, str]) -> Iterator[Stack]:
        """The stacks in the CPU entry areas, with these `names`, each with the guard page that its structure has below
        it."""
        prog = self._kernel.prog
        with self._kernel.reading("the exception stacks"):
            members = prog.type("struct cea_exception_stacks").members or ()
            places = {member.name: (member.offset, drgn.sizeof(member.type)) for member in members if member.name}
            area = prog.type("struct cpu_entry_area")
            # The entry stack is in the same area of the CPU, below these.
            entry = drgn.offsetof(area, "entry_stack_page") - drgn.offsetof(area, "estacks")
            entry_size = prog.type("struct entry_stack").size or 0
            bases = [
                (cpu, helpers.per_cpu(prog["cea_exception_stacks"], cpu).value_())
                for cpu in possible_cpus(self._kernel)
            ]
        for cpu, base in bases:
            if not base:
                continue
            for member, (offset, size) in places.items():
                stem = member.partition("_stack")[0]
                if not member.endswith("_stack") or not size:
                    continue
                guard = places.get(f"{member}_guard", (0, 0))[1]
                words = names.get(stem, stem)
                start = base + offset
                yield Stack(start, start + size, stem, f"{words} stack of CPU {cpu}", cpu, None, guard)
            start = base + entry
            yield Stack(start, start + entry_size, "entry", f"entry stack of CPU {cpu}", cpu, None, 0)

    def at(self, address: int) -> Stack | None:
        """The stack that holds an address."""
        number = bisect_right(self._starts, address) - 1
        stack = self.stacks[number] if number >= 0 else None
        return stack if stack is not None and address < stack.end else None

    def guarded(self, address: int) -> Stack | None:
        """The stack whose guard page holds an address, which means that it overflowed."""
        number = bisect_right(self._starts, address)
        stack = self.stacks[number] if number < len(self.stacks) else None
        return stack if stack is not None and address >= stack.start - stack.guard else None

    def above(self, address: int) -> Stack | None:
        """The stack whose vmap area has its guard page, which is above it, at an address."""
        number = bisect_right(self._starts, address) - 1
        stack = self.stacks[number] if number >= 0 else None
        if stack is None or not stack.end <= address < stack.end + stack.guard:
            return None
        areas = vmap_areas(self._kernel)
        area = areas.at(address)
        return stack if area is not None and area.start <= stack.start and areas.is_guard(area, address) else None


class StackLocator:
    """The stack that holds an address, or whose guard page does. `selection` has the CPUs' stack pointers."""

    def __init__(self, kernel: Kernel, selection: Selection | None = None) -> None:
        self._kernel = kernel
        self._selection = selection if selection is not None else Selection(kernel)

    def locate(self, address: int) -> Iterable[Layer]:
        kernel, paging = self._kernel, page_tables(self._kernel).paging
        if not kernel.has_types or paging is None or paging.is_user(address):
            return
        owned = owned_address(kernel, address)
        place = owned if owned is not None else address
        if owned is None and page_tables(kernel).in_image(address):
            first = first_stack(kernel) if is_data(kernel, address) else None
            if first is None or address not in first:
                return
        stacks = stacks_of(kernel)
        stack = stacks.at(place)
        if stack is not None:
            yield self._layer(stack, place, address - place)
            return
        below = stacks.guarded(place)
        if below is not None and not _is_anothers(self._kernel, place):
            past = below.start - place
            name = f"guard page of the {below.name}, {past:#x} bytes past its end"
            yield self._guard(below, name, range(below.start - below.guard, below.start), place, past)
            return
        above = stacks.above(place)
        if above is not None:
            past = place - above.end
            name = f"guard page above the {above.name}, {past:#x} bytes past its top"
            yield self._guard(above, name, range(above.end, above.end + above.guard), place, past)
        elif stacks.problem is not None and self._may_be_stack(place):
            raise TargetError(stacks.problem)

    def _layer(self, stack: Stack, place: int, shift: int) -> Layer:
        details = _details(stack, place, False)
        extent = range(stack.start, stack.end)
        if stack.task is not None:
            side = side_on_task_stack(self._selection, self._kernel, stack.task.address, extent, place)
        elif stack.cpu is not None and stack.owner != "none":
            side = side_on_cpu_stack(self._selection, stack.cpu, extent, place)
        else:
            side = Side()
        if side.live is not None:
            details["side"] = "live" if side.live else "dead"
            details["sp"] = hex(side.pointer) if side.pointer is not None else None
        if side.frame is not None:
            details["frame"] = {"number": side.frame.number, "function": side.frame.function}
        if stack.task is not None and place < stack.start + self._kernel.word.size and self._has_end_magic():
            details["end_magic"] = self._end_magic_of(stack.start)
        return Layer(KIND.name, stack.name, stack.start + shift, stack.end + shift, SOURCE, details)

    def _guard(self, stack: Stack, name: str, extent: range, place: int, past: int) -> Layer:
        details = {**_details(stack, place, True), "past": past}
        return Layer(KIND.name, name, extent.start, extent.stop, SOURCE, details)

    def _end_magic_of(self, start: int) -> bool | None:
        """Whether the lowest word of a stack is as it was set; None if it cannot be read, or the dump left it out."""
        data = try_read(self._kernel.read, start, self._kernel.word.size)
        if data is None or (not any(data) and is_zero_filled(self._kernel, start)):
            return None
        return self._kernel.word.at(data, 0) == _END_MAGIC

    def _has_end_magic(self) -> bool:
        """Whether the lowest word is it: without CONFIG_THREAD_INFO_IN_TASK the struct thread_info is there."""
        try:
            return bool(self._kernel.prog.type("struct task_struct").has_member("thread_info"))
        except LookupError:
            return False

    def _may_be_stack(self, address: int) -> bool:
        """Whether an address is in an allocation of the size of a stack."""
        area = vmap_areas(self._kernel).at(address)
        return area is not None and area.end - area.start - page_size_of(self._kernel) == thread_size_of(self._kernel)


def _is_anothers(kernel: Kernel, address: int) -> bool:
    """Whether a page below a stack is not a guard page: another vmap area has memory there."""
    areas = vmap_areas(kernel)
    area = areas.at(address)
    return area is not None and not areas.is_guard(area, address)


def _details(stack: Stack, place: int, guard: bool) -> dict[str, Any]:
    return {
        "owner": stack.owner,
        "cpu": stack.cpu,
        "pid": stack.task.pid if stack.task is not None else None,
        "comm": stack.task.comm if stack.task is not None else None,
        "depth": stack.end - place if place < stack.end else None,
        "guard": guard,
    }


@remembered(UNTIL_RESUMED)
def stacks_of(kernel: Kernel) -> Stacks:
    """The stacks of a kernel with types. TargetError if they cannot be read at all."""
    return Stacks(kernel)


def stack_at(kernel: Kernel, address: int) -> StackBounds | None:
    """The stack that holds an address, or has overflowed to it, from the kernel's own record of it; None if that
    cannot be read."""
    try:
        stacks = stacks_of(kernel) if kernel.has_types else None
        stack = stacks.at(address) if stacks is not None else None
        if stacks is not None and stack is None and not _is_anothers(kernel, address):
            stack = stacks.guarded(address)
    except TargetError:
        return None
    return StackBounds(stack.start, stack.end, stack.name, "the kernel's own record of it") if stack else None


@remembered(UNTIL_RESUMED)
def first_stack(kernel: Kernel) -> range | None:
    """The only stack in the image, the first task's."""
    start = kernel.symbol("init_stack")
    return range(start, start + thread_size_of(kernel)) if start is not None else None


def thread_size_of(kernel: Kernel) -> int:
    """THREAD_SIZE, from the vmlinux's symbols, else its types. TargetError if it is not known."""
    size = thread_size(kernel.image) if kernel.image is not None else None
    if size is None:
        with kernel.reading("the size of a stack"):
            size = kernel.prog.type("union thread_union").size
    if not size:
        raise TargetError("the size of a stack is not known")
    return size


locates(KIND, lambda kernel, user: StackLocator(kernel, user.threads))
