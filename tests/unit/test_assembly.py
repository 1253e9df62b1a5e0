"""What a session is made of: files alone, a target's memory, and a kernel's records that are made when needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.elf_builder import BASE_64, small_vmlinux

from kplug import model
from kplug.assembly import Found, FrontEnd, session_of
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.expressions import Hints
from kplug.frozen import replace
from kplug.image.images import Images
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.lifetimes import Memo
from kplug.model import Layer, State
from kplug.records import AreaParts, Records, on_demand
from kplug.session import Missing
from kplug.space.address_space import AddressSpaceFacts, address_space
from kplug.space.locators import AreaLocator
from kplug.target import Target

TEXT = BASE_64 + 0x14
ELSEWHERE = 0xFFFF888000001000


class Memory(Target):
    """A debugger's side that has memory and no registers."""

    def __init__(self) -> None:
        self._memo = Memo()

    @property
    def memo(self) -> Memo:
        return self._memo

    def description(self) -> str:
        return "a test"

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        raise TargetError("nothing can be read")

    def state(self, address: int) -> State:
        return State(mapped=True, permissions="rw-")


class Locating:
    """A locator whose kind of thing is everywhere."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def locate(self, address: int) -> Iterable[Layer]:
        yield Layer(model.PERCPU, "a test", address, address + 8, "a test", {})
        if self._error is not None:
            raise self._error


class HostError(Exception):
    """An error of the debugger's own."""


class Supply:
    """Makes the records it is given, and counts how often it is asked."""

    own_errors: tuple[type[Exception], ...] = (HostError,)

    def __init__(self, records: Records | None) -> None:
        self._records = records
        self.asked = 0

    def records(self) -> Records | None:
        self.asked += 1
        return self._records

    def needed(self) -> Records:
        if self._records is None:
            raise TargetError("no drgn")
        return self._records


@pytest.fixture
def images(tmp_path: Path) -> Sequence[PlacedImage]:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    image = open_vmlinux(str(path))
    return [PlacedImage(image, as_linked(image.sections))]


def test_files_alone(images: Sequence[PlacedImage]) -> None:
    front_end = FrontEnd(facts={"gdb": "13"}, missing=[Missing("drgn", "modules", "get it")])
    session = session_of(Found(images, warnings=["a warning"], ways=["a way"]), front_end=front_end)
    answer = session.resolver.where(TEXT)
    assert answer.first(model.IMAGE) is not None
    assert answer.state == State()
    assert (session.warnings, session.ways, session.host_facts) == (("a warning",), ("a way",), {"gdb": "13"})
    assert [missing.what for missing in session.missing] == ["drgn"]


def test_nothing_at_all() -> None:
    session = session_of(Found(is_running=True), Memory())
    assert session.main is None
    assert session.is_running


def test_a_targets_memory(images: Sequence[PlacedImage]) -> None:
    session = session_of(Found(images), Memory())
    assert session.resolver.where(TEXT).state == State(mapped=True, permissions="rw-", freed=False)


def test_records_are_not_made_for_what_the_kernel_never_changes(images: Sequence[PlacedImage]) -> None:
    target, supply = Memory(), Supply(None)
    session = session_of(Found(images), target, on_demand(images, target, supply))
    assert session.resolver.where(TEXT).first(model.SYMBOL) is not None
    assert supply.asked == 0
    session.resolver.where(ELSEWHERE)
    assert supply.asked > 0


def test_without_records_the_rest_of_the_answer_stands(images: Sequence[PlacedImage]) -> None:
    target = Memory()
    session = session_of(Found(images), target, on_demand(images, target, Supply(None)))
    assert session.resolver.where(ELSEWHERE).state.mapped
    assert session.modules is not None
    with pytest.raises(TargetError, match="no drgn"):
        session.modules.modules()


def made(images: Sequence[PlacedImage], *locators: Locating, live: bool = True) -> Records:
    return Records(Images(images), locators, states=Paged(), freed=lambda address: True, live=live)


class Paged:
    """The state by page tables."""

    def state(self, address: int) -> State:
        return State(mapped=False)


def test_what_the_records_tell(images: Sequence[PlacedImage]) -> None:
    target = Memory()
    session = session_of(Found(images), target, on_demand(images, target, Supply(made(images, Locating()))))
    answer = session.resolver.where(ELSEWHERE)
    assert answer.first(model.PERCPU) is not None
    assert answer.state == State(mapped=True, permissions="rw-", freed=True)


def test_parts_of_an_area_are_told_by_the_records(images: Sequence[PlacedImage]) -> None:
    target, first = Memory(), 0xFFFFFE0000001000
    facts = AddressSpaceFacts(
        cpu_entry_areas=((0, first),), cpu_entry_area_size=0x3B000, cpu_entry_area_members=(("gdt", 0, 0x1000),)
    )
    records = replace(made(images), facts=lambda: facts)
    answer = session_of(Found(images), target, on_demand(images, target, Supply(records))).resolver.where(first + 0x10)
    assert [layer.name for layer in answer.layers if layer.kind == model.AREA] == [
        "cpu_entry_area",
        "CPU 0",
        "gdt of CPU 0",
    ]


def test_of_a_dump_the_page_tables_are_asked(images: Sequence[PlacedImage]) -> None:
    target = Memory()
    session = session_of(Found(images), target, on_demand(images, target, Supply(made(images, live=False))))
    assert session.resolver.where(ELSEWHERE).state == State(mapped=False)


@pytest.mark.parametrize("error", [TargetError("cannot be read"), ValueError("of a library\nin two lines")])
def test_what_was_found_before_an_error_stands(images: Sequence[PlacedImage], error: Exception) -> None:
    target = Memory()
    records = made(images, Locating(error), Locating())
    answer = session_of(Found(images), target, on_demand(images, target, Supply(records))).resolver.where(ELSEWHERE)
    assert sum(layer.kind == model.PERCPU for layer in answer.layers) == 2
    assert answer.warnings == (
        "cannot be read" if isinstance(error, TargetError) else "drgn: ValueError: of a library",
    )


def test_a_warning_is_given_once(images: Sequence[PlacedImage]) -> None:
    target, error = Memory(), TargetError("cannot be read")
    records = on_demand(images, target, Supply(made(images, Locating(error))))
    (answer,) = session_of(Found(images, warnings=["lasting", str(error)]), target, records).where(hex(ELSEWHERE))
    assert answer.warnings == ("lasting", "cannot be read")


def test_the_debuggers_own_errors_are_its_to_show(images: Sequence[PlacedImage]) -> None:
    target = Memory()
    session = session_of(
        Found(images), target, on_demand(images, target, Supply(made(images, Locating(HostError("gone")))))
    )
    with pytest.raises(HostError):
        session.resolver.where(ELSEWHERE)


def test_what_else_could_tell_is_said_once(images: Sequence[PlacedImage]) -> None:
    session = session_of(Found(images, unread="memory may tell"))
    addresses = (hex(TEXT), "0x18", "0xfffffffffffffff4", hex(ELSEWHERE), hex(ELSEWHERE))
    told = [answer.warnings for address in addresses for answer in session.where(address)]
    assert [any("memory may tell" in each for each in warnings) for warnings in told] == [False] * 3 + [True, False]


def test_files_have_no_programs(images: Sequence[PlacedImage]) -> None:
    session = session_of(Found(images), front_end=FrontEnd(Hints(memory="-c FILE")))
    needed = r"--pid 1: needs the memory of a kernel, through drgn \(-c FILE\)"
    with pytest.raises(UsageError, match=needed), session.program(1):
        pass
    with session.program(None):
        assert list(session.where(hex(TEXT)))
    with (
        pytest.raises(UsageError, match="by drgn, and drgn is not used here"),
        session_of(Found(images), Memory()).program(1),
    ):
        pass


def test_physical_addresses_need_page_tables_and_drgn(images: Sequence[PlacedImage]) -> None:
    with pytest.raises(ExpressionError, match="from page tables, and there are none here"):
        list(session_of(Found(images)).where("phys:0x1000"))
    with pytest.raises(ExpressionError, match="from page tables, and drgn is not used here"):
        list(session_of(Found(images), Memory()).where("phys:0x1000"))


class Programs:
    """A program of the number 7; another one has no addresses."""

    def __init__(self) -> None:
        self.pid: int | None = None

    def problem(self) -> str | None:
        return None if self.pid else "nobody's"

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        if pid != 7:
            raise UsageError(f"no task has the ID {pid}")
        self.pid = pid
        yield
        self.pid = None


def test_user_addresses_are_those_of_the_process_that_is_named(images: Sequence[PlacedImage]) -> None:
    """In a debugger too: a small number is an address then, and the records are asked of it."""
    programs, address = Programs(), "0x401000"

    class Mapped:
        def locate(self, address: int) -> Iterable[Layer]:
            if programs.pid:
                yield Layer("vma", f"program of {programs.pid}", 0, 1 << 40, "", {})

    records = replace(made(images, Mapped()), programs=programs)
    for session in (
        session_of(Found(images), Memory(), records),
        session_of(Found(images), Memory(), on_demand(images, Memory(), Supply(records))),
    ):
        (answer,) = session.where(address)
        assert answer.warnings == ("nobody's",)
        with session.program(7):
            for asked in (address, "0x18"):
                (answer,) = session.where(asked)
                assert [layer.kind for layer in answer.layers if layer.kind not in ("area", "special")] == ["vma"]
                assert answer.warnings == ()
        with pytest.raises(UsageError, match="no task has the ID 8"), session.program(8):
            pass
        (answer,) = session.where(address)
        assert answer.warnings == ("nobody's",)


def test_a_part_that_both_maps_have_is_told_once() -> None:
    """s390x's lowcore: no debug information is needed for it."""
    facts = AddressSpaceFacts(vmemmap_start=0x37200000000, vmalloc_start=0x37FFE700000, vmalloc_end=0x3FF7E700000)
    asked: Any = SimpleNamespace(machine="s390x", of=lambda address: SimpleNamespace(facts=lambda: facts))
    space = address_space("s390x", facts)
    assert space is not None
    assert [layer.name for layer in AreaLocator(space).locate(0x10)] == ["direct map", "lowcore"]
    assert list(AreaParts(asked).locate(0x10)) == []
