"""Static per-CPU variables from symbols and three small reads, both ways: kplug/memory/percpu.py.

The memory is made here; real kernels are asked in tests/runtime/percpu.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.elf_builder import BASE_64, EM_AARCH64, EM_X86_64, OBJECT, A, Elf, Sec, Sym, W, small_vmlinux

from kplug import model
from kplug.errors import ExpressionError, TargetError
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import moved_by
from kplug.lifetimes import UNTIL_RESUMED, Memo
from kplug.memory.percpu import StaticPercpu, Wanted, cpus_words, wanted_instance
from kplug.memory.reading import FaultError
from kplug.model import Annotation
from kplug.session import Session

KASLR_OFFSET = 0x8A00000
SIZE = 0x200
# CPU number to where its static area begins; CPU 1 is not there, and the areas are in no order.
AREAS = {0: 0xFFFF888000400000, 2: 0xFFFF888000300000, 3: 0xFFFF888000500000}
MASK = (1 << 64) - 1


def vmlinux(percpu: int, machine: int = EM_X86_64, without: str = "") -> Elf:
    """A vmlinux whose per-CPU section is linked at `percpu`."""
    elf = small_vmlinux(machine=machine)
    elf.sections.append(Sec(".data..percpu", flags=A | W, address=percpu, data=bytes(SIZE)))
    elf.sections.append(Sec(".kernel", flags=A | W, address=BASE_64 + 0x3100, data=bytes(0x100)))
    assert elf.symbols is not None
    elf.symbols += [
        Sym("__per_cpu_start", percpu, 0, ".data..percpu"),
        Sym("__per_cpu_end", percpu + SIZE, 0, ".data..percpu"),
        Sym("runqueues", percpu + 0x40, 0x80, ".data..percpu", OBJECT),
        Sym("this_cpu_off", percpu + 0x100, 8, ".data..percpu", OBJECT),
        Sym("__cpu_possible_mask", BASE_64 + 0x3100, 8, ".kernel", OBJECT),
        Sym("nr_cpu_ids", BASE_64 + 0x3110, 4, ".kernel", OBJECT),
        Sym("__per_cpu_offset", BASE_64 + 0x3140, 64 * 8, ".kernel", OBJECT),
    ]
    elf.symbols = [symbol for symbol in elf.symbols if symbol.name != without]
    return elf


class Memory:
    """A target whose memory holds what the variables say; it counts its reads."""

    def __init__(self, percpu: int, areas: Mapping[int, int] = AREAS) -> None:
        template = percpu + KASLR_OFFSET if percpu else 0
        mask = sum(1 << cpu for cpu in areas)
        offsets = [areas.get(cpu, template) - template & MASK for cpu in range(4)]
        self.words = {
            BASE_64 + KASLR_OFFSET + 0x3100: struct.pack("<Q", mask),
            BASE_64 + KASLR_OFFSET + 0x3110: struct.pack("<I", 4),
            BASE_64 + KASLR_OFFSET + 0x3140: struct.pack("<4Q", *offsets),
        }
        self.reads: list[tuple[int, int]] = []
        self.memo = Memo()

    def description(self) -> str:
        return "a test"

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        self.reads.append((address, size))
        if address not in self.words or len(self.words[address]) < size:
            raise FaultError(f"nothing at {address:#x}")
        return self.words[address][:size]

    def evaluate(self, expression: str) -> int:
        raise ExpressionError(f"{expression}: no such symbol, section or register")


Made = tuple[Session, Memory]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    def made(percpu: int = 0, machine: int = EM_X86_64, without: str = "", areas: Mapping[int, int] = AREAS) -> Made:
        path = tmp_path / "vmlinux"
        path.write_bytes(bytes(vmlinux(percpu, machine, without)))
        image = open_vmlinux(str(path))
        placed = PlacedImage(image, moved_by(image.sections, KASLR_OFFSET, "a test"))
        memory = Memory(percpu, areas)
        static = StaticPercpu(placed, memory.read, memory.memo)
        return Session([placed], target=memory, locators=(static,), percpu=static), memory

    return made


def answer(session: Session, expression: str) -> Annotation:
    (annotation,) = session.where(expression)
    return annotation


# x86_64 up to 6.14 links the section at 0; 6.15 and every other architecture at ordinary addresses inside init.
LAYOUTS = [(0, EM_X86_64), (BASE_64 + 0x3400, EM_X86_64), (BASE_64 + 0x3400, EM_AARCH64)]


@pytest.mark.parametrize(("percpu", "machine"), LAYOUTS)
def test_an_instance_is_its_variable_on_that_cpu(make: Callable[..., Made], percpu: int, machine: int) -> None:
    session, _ = make(percpu, machine)
    for cpu, start in AREAS.items():
        found = answer(session, hex(start + 0x48))
        layer, symbol = found.first(model.PERCPU), found.last(model.SYMBOL)
        assert layer is not None
        assert symbol is not None
        assert (layer.name, layer.start, layer.end) == (f"CPU {cpu}", start, start + SIZE)
        assert layer.details == {"variable": "runqueues", "cpu": cpu, "kind": "static", "offset": "0x48"}
        assert (symbol.name, symbol.start, symbol.end) == ("runqueues", start + 0x40, start + 0xC0)
        assert (found.region_class, found.link_address, found.warnings) == ("percpu", None, ())


def test_between_two_variables_is_padding_on_that_cpu(make: Callable[..., Made]) -> None:
    session, _ = make()
    found = answer(session, hex(AREAS[2] + 0xC0))
    gap, layer = found.last(model.GAP), found.first(model.PERCPU)
    assert gap is not None
    assert layer is not None
    assert (gap.start, gap.end) == (AREAS[2] + 0xC0, AREAS[2] + 0x100)
    assert gap.details["after"] == "runqueues"
    assert layer.details["variable"] is None


@pytest.mark.parametrize("outside", [-1, SIZE])
def test_an_area_ends_where_the_static_variables_do(make: Callable[..., Made], outside: int) -> None:
    session, _ = make()
    assert answer(session, hex(AREAS[3] + outside)).first(model.PERCPU) is None


@pytest.mark.parametrize(("percpu", "machine"), LAYOUTS)
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("runqueues@2", [AREAS[2] + 0x40]),
        ("&runqueues@2", [AREAS[2] + 0x40]),
        ("runqueues@ 2", [AREAS[2] + 0x40]),
        ("runqueues@2+0x10", [AREAS[2] + 0x50]),
        ("runqueues@2 - 16", [AREAS[2] + 0x30]),
        ("runqueues@2-0x50", [AREAS[2] - 0x10]),
        (".data..percpu@0", [AREAS[0]]),
        (".data..percpu@0+8", [AREAS[0] + 8]),
        ("runqueues@*", [start + 0x40 for start in AREAS.values()]),
        ("runqueues@all", [start + 0x40 for start in AREAS.values()]),
    ],
)
def test_a_cpus_instance_by_name(
    make: Callable[..., Made], percpu: int, machine: int, expression: str, expected: list[int]
) -> None:
    session, _ = make(percpu, machine)
    assert [place.address for place in session.places(expression)] == expected


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("runqueues@1", "runqueues@1: CPU 1: this kernel has CPUs 0,2-3"),
        ("runqueues@64", "runqueues@64: CPU 64: this kernel has CPUs 0,2-3"),
        ("jiffies@0", "jiffies@0: jiffies is not a per-CPU variable"),
        ("nothing@0", "nothing@0: no such symbol, section or register"),
        ("runqueues@", "runqueues@: no such symbol, section or register"),
        ("runqueues@x", "runqueues@x: no such symbol, section or register"),
        ("runqueues@0+0x10000000000000000", "0x10000000000000000: more than 64 bits"),
        ("@1", "@1: no such symbol, section or register"),
        ("runqueues@1@2", "runqueues@1@2: no such symbol, section or register"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(make: Callable[..., Made], expression: str, complaint: str) -> None:
    session, _ = make()
    with pytest.raises(ExpressionError) as error:
        session.places(expression)
    assert str(error.value) == complaint


def test_files_alone_tell_no_instance(make: Callable[..., Made]) -> None:
    session, _ = make()
    with pytest.raises(ExpressionError, match="a CPU's own copy can only be found in memory, and there is none here"):
        Session(session.images).places("runqueues@0")


def test_memory_is_read_when_it_must_be_and_once_as_long_as_it_stands(make: Callable[..., Made]) -> None:
    session, memory = make()
    for expression in ("jiffies", "runqueues", "0x0", "0x7fffff000000", "start_kernel+4"):
        answer(session, expression)
    assert memory.reads == []
    for start in AREAS.values():
        answer(session, hex(start))
        answer(session, "runqueues@0")
    assert [size for _, size in memory.reads] == [4, 8, 4 * 8]
    memory.memo.forget(UNTIL_RESUMED)
    answer(session, hex(AREAS[0]))
    assert len(memory.reads) == 6


def test_memory_that_cannot_be_read_is_a_warning(make: Callable[..., Made]) -> None:
    session, memory = make()
    memory.words.clear()
    found = answer(session, hex(AREAS[0]))
    assert found.first(model.PERCPU) is None
    assert found.warnings == (f"per-CPU areas: nothing at {BASE_64 + KASLR_OFFSET + 0x3110:#x}",)
    with pytest.raises(TargetError, match="nothing at"):
        session.places("runqueues@0")


@pytest.mark.parametrize(
    ("place", "data"), [(0x3110, bytes(4)), (0x3110, struct.pack("<I", 65)), (0x3110, b"\xff" * 4)]
)
def test_a_number_of_cpus_that_cannot_be_is_refused(make: Callable[..., Made], place: int, data: bytes) -> None:
    session, memory = make()
    memory.words[BASE_64 + KASLR_OFFSET + place] = data
    (warning,) = answer(session, hex(AREAS[0])).warnings
    assert warning.startswith("per-CPU areas: nr_cpu_ids is ")
    assert max(size for _, size in memory.reads) == 4


@pytest.mark.parametrize(
    "areas",
    [
        {},  # no CPU is possible yet
        {0: AREAS[0], 1: AREAS[0]},  # x86: all at BOOT_PERCPU_OFFSET
        {0: AREAS[0], 1: AREAS[0] + SIZE - 1},
        {0: BASE_64 + KASLR_OFFSET + 0x3000},  # in the image: the boot CPU's, until it has its own
    ],
)
def test_before_they_are_set_up_nothing_is_per_cpu(make: Callable[..., Made], areas: Mapping[int, int]) -> None:
    session, _ = make(areas=areas)
    found = answer(session, hex(AREAS[0] + 0x40))
    assert found.first(model.PERCPU) is None
    assert found.warnings == ()
    with pytest.raises(TargetError, match="not set up yet"):
        session.places("runqueues@0")


@pytest.mark.parametrize("without", ["__per_cpu_start", "__per_cpu_end", "__per_cpu_offset", "__cpu_possible_mask"])
def test_a_kernel_without_the_symbols_has_no_areas(make: Callable[..., Made], without: str) -> None:
    session, memory = make(without=without)
    found = answer(session, hex(AREAS[0] + 0x40))
    assert (found.first(model.PERCPU), found.warnings, memory.reads) == (None, (), [])
    with pytest.raises(TargetError, match="the vmlinux has no symbols of any"):
        session.places("runqueues@0")


def test_a_kernel_built_for_one_number_of_cpus_has_no_nr_cpu_ids(make: Callable[..., Made]) -> None:
    session, memory = make(without="nr_cpu_ids")
    layer = answer(session, hex(AREAS[3] + 0x40)).first(model.PERCPU)
    assert layer is not None
    assert layer.details["cpu"] == 3
    assert [size for _, size in memory.reads] == [8, 4 * 8]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("runqueues@1", Wanted("runqueues", 1)),
        (" &runqueues@12 + 0x10 ", Wanted("&runqueues", 12, 0x10)),
        ("core.c:runqueues@0", Wanted("core.c:runqueues", 0)),
        ("0x34008@1", Wanted("0x34008", 1)),
        ("runqueues@*-8", Wanted("runqueues", None, -8)),
        ("runqueues", None),
        ("runqueues@-1", None),
        ("runqueues@1.nr_running", None),
        ("runqueues@9999999999", None),
    ],
)
def test_the_grammar(text: str, wanted: Wanted | None) -> None:
    assert wanted_instance(text) == wanted


@pytest.mark.parametrize(
    ("cpus", "words"), [([0], "CPU 0"), ([1, 0], "CPUs 0-1"), ([0, 1, 2, 4, 6, 7], "CPUs 0-2,4,6-7")]
)
def test_cpus_are_listed_as_ranges(cpus: list[int], words: str) -> None:
    assert cpus_words(cpus) == words
