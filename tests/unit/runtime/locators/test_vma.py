"""The mappings of a user program (kplug/runtime/locators/vma.py), in the maple tree and the red-black tree before it.

What is expected is what was planted; the rights are written as /proc/PID/maps writes them.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import FakeKernel
from support.fake_machines import MACHINES, PAGE, X86_64, Machine
from support.fake_user import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE, FakeProgram

from kplug.errors import TargetError, UsageError
from kplug.model import Layer
from kplug.runtime.locators.pages import PageLocator
from kplug.runtime.locators.vma import HoleLocator, VmaLocator
from kplug.runtime.threads.user_space import UserSpace

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
START, END = 0x7F0000400000, 0x7F0000403000


def made(machine: Machine = X86_64, maple: bool = True) -> FakeProgram:
    fake = FakeKernel(machine)
    return FakeProgram(fake, maple=maple)


def found(program: FakeProgram, address: int) -> list[Layer]:
    return list(VmaLocator(program.fake.kernel, program.user()).locate(address))


@each_machine
@pytest.mark.parametrize("maple", [True, False])
def test_a_mapping_from_its_first_byte_to_its_last(machine: Machine, maple: bool) -> None:
    program = made(machine, maple)
    program.mapping(START, END, vm_flags=VM_READ | VM_WRITE)
    program.mapping(END + PAGE, END + 2 * PAGE, vm_flags=VM_READ)
    for address in (START, START + 0x1234, END - 1):
        (layer,) = found(program, address)
        assert (layer.kind, layer.name) == ("vma", "anonymous memory of 42 (shell)")
        assert (layer.start, layer.end) == (START, END)
        assert layer.details == {"pid": 42, "comm": "shell", "path": None, "file_offset": None, "flags": "rw-p"}
    assert [layer.start for layer in found(program, END + PAGE)] == [END + PAGE]
    outside = (START - 1, END, END + PAGE - 1, END + 2 * PAGE, 0)
    assert [found(program, address) for address in outside] == [[]] * 5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (0, "---p"),
        (VM_READ, "r--p"),
        (VM_READ | VM_EXEC, "r-xp"),
        (VM_READ | VM_WRITE | VM_EXEC | VM_SHARED, "rwxs"),
    ],
)
def test_the_rights(flags: int, words: str) -> None:
    program = made()
    program.mapping(START, END, vm_flags=flags)
    assert found(program, START)[0].details["flags"] == words


@each_machine
@pytest.mark.parametrize("maple", [True, False])
def test_a_files_mapping(machine: Machine, maple: bool) -> None:
    program = made(machine, maple)
    program.mapping(START, END, vm_file=program.file("usr", "bin", "true"), vm_pgoff=2)
    (layer,) = found(program, END - 1)
    assert layer.name == "/usr/bin/true of 42 (shell)"
    assert (layer.details["path"], layer.details["file_offset"]) == ("/usr/bin/true", "0x2000")


def test_a_files_first_page_has_the_offset_0() -> None:
    program = made()
    program.mapping(START, END, vm_file=program.file("init"))
    assert found(program, START)[0].details["file_offset"] == "0x0"


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"start_brk": START + PAGE, "brk": END}, "[heap]"),
        ({"start_brk": END, "brk": END + PAGE}, "[heap]"),
        ({"start_brk": END + 1, "brk": END + PAGE}, None),
        ({"start_stack": END - 8}, "[stack]"),
        ({"start_stack": END + 8}, None),
    ],
)
def test_the_heap_and_the_stack_of_a_program(members: dict[str, int], path: str | None) -> None:
    program = made()
    program.mapping(START, END)
    program.fake.put("mm_struct", program.mm, members)
    assert found(program, START)[0].details["path"] == path


@pytest.mark.parametrize("by_function", [True, False])
def test_what_the_kernel_itself_mapped(by_function: bool) -> None:
    """arm64's vdso has special_mapping_vmops: its name is its vm_special_mapping's, which special_mapping_name() tells
    where the operations have that."""
    program = made()
    fake = program.fake
    if by_function:
        fake.put("vm_operations_struct", program.special_operations, {"name": program.special_name})
    special = fake.make("vm_special_mapping", {"name": fake.text("[vdso]")})
    program.mapping(START, END, vm_ops=program.special_operations, vm_private_data=special)
    (layer,) = found(program, START)
    assert (layer.name, layer.details["path"]) == ("[vdso] of 42 (shell)", "[vdso]")


def test_other_operations_give_no_name() -> None:
    program = made()
    operations = program.fake.make("vm_operations_struct")
    program.mapping(START, END, vm_ops=operations, vm_private_data=0xFFFF123456789000)
    assert found(program, START)[0].name == "anonymous memory of 42 (shell)"


@pytest.mark.parametrize(
    ("function", "name", "path", "words"),
    [
        ("simple_dname", "dev/zero", "/dev/zero (deleted)", "shared anonymous memory"),
        ("simple_dname", "SYSV0000002a", "/SYSV0000002a (deleted)", "/SYSV0000002a (deleted)"),
        ("simple_dname", "memfd:pool", "/memfd:pool (deleted)", "/memfd:pool (deleted)"),
        ("anon_inodefs_dname", "[perf_event]", "anon_inode:[perf_event]", "anon_inode:[perf_event]"),
    ],
)
def test_files_in_no_directory(function: str, name: str, path: str, words: str) -> None:
    """Their dentries have d_dname(), which d_path() asks: what /proc/PID/maps shows."""
    program = made()
    fake = program.fake
    fake.known(function, None, fake.machine.image + 0x800)
    operations = fake.make("dentry_operations", {"d_dname": fake.machine.image + 0x800})
    dentry = fake.make("dentry", {"d_name.name": fake.text(name), "d_op": operations})
    file = fake.make("file", {"f_path.mnt": fake.make("vfsmount"), "f_path.dentry": dentry})
    program.mapping(START, END, vm_file=file, vm_flags=VM_READ | VM_SHARED)
    (layer,) = found(program, START)
    assert (layer.name, layer.details["path"]) == (f"{words} of 42 (shell)", path)


def holes(program: FakeProgram, address: int) -> list[tuple[object, object, int | None, int | None]]:
    layers = list(HoleLocator(program.fake.kernel, program.user()).locate(address))
    assert all(layer.kind == "gap" for layer in layers)
    return [(layer.details["after"], layer.details["before"], layer.start, layer.end) for layer in layers]


def test_holes_are_between_mappings() -> None:
    program = made()
    program.mapping(START, END, vm_file=program.file("usr", "bin", "true"))
    program.mapping(END + PAGE, END + 2 * PAGE)
    file, memory = f"/usr/bin/true at {START:#x}", f"anonymous memory at {END + PAGE:#x}"
    assert holes(program, END) == holes(program, END + PAGE - 1) == [(file, memory, END, END + PAGE)]
    assert holes(program, START - 1) == [("the first address", file, 0, START)]
    end = (1 << 47) - PAGE  # TASK_SIZE_MAX: the last page of the half guards the kernel's
    assert holes(program, END + 2 * PAGE) == [(memory, "the end of the user half", END + 2 * PAGE, end)]
    assert holes(program, end) == []
    assert holes(program, START) == holes(program, END + 2 * PAGE - 1) == []
    # Too small to be a program's address, unless the question says so; the kernel's; none at all.
    assert holes(program, 0x1000) == holes(program, X86_64.direct_map) == holes(program, 1 << 62) == []


@each_machine
def test_the_kernels_half_and_what_is_no_address_are_not_asked_about(machine: Machine) -> None:
    program = made(machine)
    program.mapping(0, END)
    assert [found(program, place) for place in (machine.direct_map, machine.image, 1 << 62)] == [[]] * 3


def test_a_kernel_thread_and_nobody_have_no_mappings() -> None:
    program = made()
    program.mapping(START, END)
    assert list(VmaLocator(program.fake.kernel, UserSpace(program.fake.kernel, None)).locate(START)) == []
    program.fake.put("task_struct", program.task, {"mm": 0})
    assert found(program, START) == []


@each_machine
def test_a_page_of_the_program_is_found_by_its_own_tables(machine: Machine) -> None:
    program = made(machine)
    fake = program.fake
    frame = fake.physical(fake.take(PAGE))
    fake.map(START, frame, root=program.root)
    fake.page(frame // PAGE, mapping=X86_64.direct_map | 1)
    (layer,) = PageLocator(fake.kernel, program.user()).locate(START + PAGE - 1)
    assert (layer.name, layer.start, layer.details["pfn"]) == ("anonymous page", START, frame // PAGE)


def test_under_page_table_isolation_the_programs_own_copy_counts() -> None:
    """pti_set_user_pgtbl(): the kernel's top entry forbids to execute, the copy in the page behind does not."""
    fake = FakeKernel()
    program = FakeProgram(fake)
    tables = fake.take(2 * PAGE, 2 * PAGE)
    fake.put("mm_struct", program.mm, {"pgd": tables})
    fake.map(START, 0x30000, root=tables)
    slot = 8 * (START >> 39)
    entry = int.from_bytes(fake.prog.read(tables + slot, 8), "little")
    user = program.user()
    assert user.root(START) == fake.physical(tables)
    fake.words(tables + slot, entry | 1 << 63)
    assert user.root(START) == fake.physical(tables)  # no copy
    fake.words(tables + PAGE + slot, entry)
    assert user.root(START) == fake.physical(tables) + PAGE


# -- what cannot be read -----------------------------------------------------------------------------------------------


@each_machine
@pytest.mark.parametrize("maple", [True, False])
def test_a_mapping_that_cannot_be_read(machine: Machine, maple: bool) -> None:
    program = made(machine, maple)
    vma = program.mapping(START, END)
    program.fake.lose(vma, 8)
    with pytest.raises(TargetError, match=r"the mappings of 42 \(shell\): address is not mapped"):
        found(program, START)


def test_a_tree_that_cannot_be_followed() -> None:
    program = made()
    program.mapping(START, END)
    program.fake.put("mm_struct", program.mm, {"mm_mt.ma_root": 0x1234567802})
    with pytest.raises(TargetError, match=r"the mappings of 42 \(shell\)"):
        found(program, START)


@pytest.mark.parametrize(("start", "end"), [(START + 1, END), (START, START), (0, 0), (END, START)])
def test_a_mapping_that_does_not_hold_the_address_it_was_found_for(start: int, end: int) -> None:
    program = made()
    vma = program.mapping(START, END)
    program.fake.put("vm_area_struct", vma, {"vm_start": start, "vm_end": end})
    words = f"what is at {vma:#x} should map {START:#x}, and has {start:#x}-{end:#x}"
    with pytest.raises(TargetError, match=rf"the mappings of 42 \(shell\): {words}"):
        found(program, START)


def test_a_file_whose_name_cannot_be_read_is_no_anonymous_memory() -> None:
    program = made()
    file = program.file("usr")
    program.mapping(START, END, vm_file=file, vm_pgoff=1)
    program.fake.lose(file, 32)
    layers = VmaLocator(program.fake.kernel, program.user()).locate(START)
    layer = next(iter(layers))
    assert (layer.name, layer.details["path"]) == ("mapping of 42 (shell)", None)
    assert layer.details["file_offset"] == "0x1000"
    with pytest.raises(TargetError, match=f"the name of the mapping at {START:#x}"):
        found(program, START)


def test_a_name_of_the_kernels_that_cannot_be_read_is_no_anonymous_memory_either() -> None:
    program = made()
    program.mapping(START, END, vm_ops=program.special_operations, vm_private_data=0xFFFF123456789000)
    layer = next(iter(VmaLocator(program.fake.kernel, program.user()).locate(START)))
    assert (layer.name, layer.details["path"], layer.details["file_offset"]) == ("mapping of 42 (shell)", None, None)
    with pytest.raises(TargetError, match=f"the name of the mapping at {START:#x}"):
        found(program, START)


def test_an_mm_that_cannot_be_read() -> None:
    program = made()
    program.mapping(START, END)
    program.fake.lose(program.mm, 64)
    with pytest.raises(TargetError, match=r"the memory of 42 \(shell\)"):
        found(program, START)


@pytest.mark.parametrize(("start", "end"), [(START, END), (START - PAGE, START + PAGE), (END, END), (END + PAGE, END)])
def test_mappings_out_of_order_bound_no_hole(start: int, end: int) -> None:
    program = made()
    program.mapping(START, END)
    vma = program.mapping(END + PAGE, END + 2 * PAGE)
    program.fake.put("vm_area_struct", vma, {"vm_start": start, "vm_end": end})
    with pytest.raises(TargetError, match=f"the mappings of a program: corrupted: {start:#x}-{end:#x} is out of order"):
        holes(program, START - 1)


@pytest.mark.parametrize("pid", [0, -5, 43, 1 << 22, 1 << 80])
def test_an_id_that_no_task_has(pid: int) -> None:
    program = made()
    with pytest.raises(UsageError, match=f"^no task has the ID {pid}$"), program.user().of(pid):
        pass
