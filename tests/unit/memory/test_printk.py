"""The kernel's log in its memory: kplug/memory/printk.py, over logs that printk's rules wrote on any machine."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from support import printk_writer
from support.printk_writer import COMMITTED, CPU, DESCS, INFOS, RESERVED, TEXTS, Buffer, Ring

from kplug.arch.types.word import WordFormat
from kplug.errors import TargetError
from kplug.memory.printk import Layouts, PrintkLog, Source, read_log
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.type_layouts import LayoutMember, TypeLayout

LITTLE_64, BIG_64 = WordFormat(), WordFormat(64, False)
LITTLE_32, BIG_32 = WordFormat(32), WordFormat(32, False)
WORDS = [LITTLE_64, BIG_64, LITTLE_32, BIG_32]


def log_of(memory: Ring | Buffer, info: VmcoreInfo | None = None) -> PrintkLog:
    known = info or memory.note()
    symbols = {name: (address,) for name, address in known.symbols.items()}
    return read_log(Source(memory.read, memory.word, lambda name: symbols.get(name, ()), Layouts(known)))


def texts(log: PrintkLog) -> list[bytes]:
    return [record.text for record in log.records]


# -- as dmesg prints it ------------------------------------------------------------------------------------------------


def test_it_is_printed_as_the_kernel_does() -> None:
    ring = Ring(LITTLE_64)
    ring.printk(b"Linux version 6.1.0")
    ring.printk(b"two\nlines", 1_234_567_890, 123)
    ring.printk(b"", 99_999_999_999, CPU | 1)
    ring.printk(b"\xff\t\x1b[31m", 123_456_000_000_999)
    log = log_of(ring)
    # print_time() and print_caller() of kernel/printk/printk.c: "[%5lu.%06lu]" and "[%6s]".
    assert log.text(False) == (
        b"[    0.000000] Linux version 6.1.0\n"
        b"[    1.234567] two\n[    1.234567] lines\n"
        b"[   99.999999] \n"
        b"[123456.000000] \xff\t\x1b[31m\n"
    )
    assert log.text(True).splitlines()[1:4] == [
        b"[    1.234567][  T123] two",
        b"[    1.234567][  T123] lines",
        b"[   99.999999][    C1] ",
    ]
    assert (log.missing, log.prints_callers) == ([], False)


# -- the ring ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fills", [False, True])
@pytest.mark.parametrize("word", WORDS)
def test_the_newest_records_are_there_after_any_number_of_rounds(word: WordFormat, fills: bool) -> None:
    rng = random.Random(14)
    ring = Ring(word, fills=fills)
    written: list[bytes] = []
    for number in range(70):
        written.append(bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 7, 8, 40, 200)))))
        ring.printk(written[-1], number)
        log = log_of(ring)
        assert not log.missing
        assert texts(log) == written[len(written) - len(log.records) :]
        assert [record.time for record in log.records] == list(range(number + 1 - len(log.records), number + 1))
        assert len(log.records) == ring.next_seq or len(log.records) >= 4


def test_a_record_is_there_once_its_writer_is_done() -> None:
    ring = Ring(LITTLE_64)
    ring.printk(b"whole")
    ring.printk(b"may be continued", state=COMMITTED)
    ring.printk(b"half", state=RESERVED)
    log = log_of(ring)
    assert texts(log) == [b"whole", b"may be continued"]
    assert log.missing == ["1 message of the kernel's log: still being written"]


def test_a_text_that_found_no_room() -> None:
    ring = Ring(LITTLE_64)
    ring.printk(b"before")
    ring.printk(b"too long", lost=True)
    ring.printk(b"after")
    log = log_of(ring)
    assert texts(log) == [b"before", b"after"]
    assert log.missing == ["1 message of the kernel's log: not in memory any more: overwritten, or never stored"]


def test_what_is_overwritten_is_not_taken_for_a_record() -> None:
    ring = Ring(LITTLE_64)
    first = ring.printk(b"its text is another's")
    second = ring.printk(b"its descriptor is another's")
    third = ring.printk(b"what is known of it is another's")
    fourth = ring.printk(b"its place is another's")
    ring.printk(b"whole")
    ring.put(ring.descriptor(fourth) + 16, LITTLE_64.packed([1 << 40]))
    ring.put(TEXTS, LITTLE_64.packed([first + 16]))
    ring.put(ring.descriptor(second), LITTLE_64.packed([(2 << 62) | (second + 16)]))
    ring.number(INFOS + third % 16 * 88, 18, 8)
    log = log_of(ring)
    assert texts(log) == [b"whole"]
    assert log.missing == ["4 messages of the kernel's log: not in memory any more: overwritten, or never stored"]


def test_writers_may_have_placed_their_texts_in_another_order() -> None:
    ring = Ring(LITTLE_64)
    ids = [ring.printk(text) for text in (b"first", b"other")]
    one, two = (ring.read(ring.descriptor(id) + 8, 16) for id in ids)
    ring.put(ring.descriptor(ids[0]) + 8, two)
    ring.put(ring.descriptor(ids[1]) + 8, one)
    ring.put(TEXTS, LITTLE_64.packed([ids[1]]))
    ring.put(TEXTS + 16, LITTLE_64.packed([ids[0]]))
    assert texts(log_of(ring)) == [b"other", b"first"]


@pytest.mark.parametrize("at", [DESCS, INFOS, TEXTS])
def test_a_page_that_the_dump_does_not_have_costs_its_records_alone(at: int) -> None:
    ring = Ring(LITTLE_64, bits=10, text_bits=15)
    written = [b"record %d" % number for number in range(1000)]
    for text in written:
        ring.printk(text)
    ring.missing = [range(at + 0x1000, at + 0x2000)]
    log = log_of(ring)
    assert 700 < len(log.records) < 1000
    assert set(texts(log)) < set(written)
    said = f"{1000 - len(log.records)} messages of the kernel's log: cannot be read: the dump does not have"
    assert log.missing == [f"{said} {at + 0x1000:#x}"]
    assert ring.largest <= 1 << 15  # gdb's values are bounded


def test_an_empty_log() -> None:
    assert log_of(Ring(LITTLE_64)).records == []
    assert log_of(Ring(LITTLE_64)).missing == []


def test_a_ring_that_is_none() -> None:
    for at, value in ((0, 40), (24, 1 << 40), (48, 60)):
        ring = Ring(LITTLE_64)
        ring.put(printk_writer.RING + at, LITTLE_64.packed([value]))
        with pytest.raises(TargetError, match=r"^the kernel's log \(prb\): there is no ring"):
            log_of(ring)
    ring = Ring(LITTLE_64)
    ring.missing = [range(printk_writer.PRB, printk_writer.PRB + 8)]
    with pytest.raises(TargetError, match="the dump does not have 0x1000"):
        log_of(ring)


# -- the buffer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("with_callers", [False, True])
@pytest.mark.parametrize("name", ["printk_log", "log"])
def test_the_buffer_before_5_10(word: WordFormat, with_callers: bool, name: str) -> None:
    rng = random.Random(14)
    buffer = Buffer(word, with_callers=with_callers, name=name)
    written: list[bytes] = []
    for number in range(50):
        written.append(bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 7, 8, 40, 200)))))
        buffer.printk(written[-1], number, CPU | 2, b"SUBSYSTEM=pci" if number % 3 else b"")
        log = log_of(buffer)
        assert not log.missing
        assert log.prints_callers is with_callers
        assert texts(log) == written[len(written) - len(log.records) :]
        assert len(log.records) == number + 1 or len(log.records) >= 3
        assert log.records[-1].time == number
        assert log.records[-1].caller == (CPU | 2 if with_callers else None)


def test_a_broken_buffer_is_read_as_far_as_it_goes() -> None:
    buffer = Buffer(LITTLE_64)
    for number in range(3):
        buffer.printk(b"%d" % number)
    buffer.put(printk_writer.BUFFER + 24 + 8, b"\x01\0")
    log = log_of(buffer)
    assert (texts(log), log.missing) == ([b"0"], ["the kernel's log ends early: broken there"])
    buffer.put(printk_writer.BUFFER + 24 + 8, b"\0\0")  # as if the rest were at the start
    assert texts(log_of(buffer)) == [b"0"]
    buffer.missing = [range(printk_writer.BUFFER, printk_writer.BUFFER + 1024)]
    assert log_of(buffer).missing == ["the kernel's log ends early: the dump does not have 0x10000"]


def test_a_size_far_beyond_memory() -> None:
    buffer = Buffer(LITTLE_64)
    buffer.size, buffer.first = 1 << 31, 1 << 30
    buffer.indexes()
    with pytest.raises(
        TargetError, match=r"^the kernel's log \(log_buf\): too much of it cannot be read: nothing is mapped"
    ):
        log_of(buffer)


# -- where its form is from --------------------------------------------------------------------------------------------


class Types:
    """The types of a debugger, made of a VMCOREINFO."""

    source = "a test"

    def __init__(self, info: VmcoreInfo) -> None:
        self._info = info

    def named(self, keyword: str, name: str) -> TypeLayout | None:
        if keyword != "struct" or name not in self._info.sizes:
            return None
        return TypeLayout(name, self._info.sizes[name], members=lambda: list(self._members(name)))

    def _members(self, name: str) -> Iterable[LayoutMember]:
        for path, offset in self._info.offsets.items():
            if path.startswith(f"{name}."):
                yield LayoutMember(path.partition(".")[2], 8 * offset, 0, lambda: TypeLayout("?", 1))


def test_without_vmcoreinfo_the_types_tell() -> None:
    for memory in (Ring(LITTLE_64), Buffer(LITTLE_64), Buffer(LITTLE_64, name="log")):
        memory.printk(b"hello")
        info = memory.note()

        def symbols(name: str, known: VmcoreInfo = info) -> Sequence[int]:
            return (known.symbols[name],) if name in known.symbols else ()

        source = Source(memory.read, LITTLE_64, symbols, Layouts(None, lambda known=info: [Types(known)]))
        assert texts(read_log(source)) == [b"hello"]
        with pytest.raises(TargetError, match="neither VMCOREINFO nor debug information says what struct"):
            read_log(Source(memory.read, LITTLE_64, symbols, Layouts(None)))


@pytest.mark.parametrize("line", ["SIZE(printk_log)=0", "SIZE(printk_log)=65536", "OFFSET(printk_log.len)=-8"])
def test_sizes_that_cannot_be(line: str) -> None:
    buffer = Buffer(LITTLE_64)
    buffer.printk(b"hello")
    with pytest.raises(TargetError, match="says of struct printk_log is impossible"):
        log_of(buffer, VmcoreInfo(f"{line}\n{buffer.note().text}"))  # the first of a name counts


def test_another_variable_of_that_name_is_passed_over() -> None:
    ring = Ring(LITTLE_64)
    ring.printk(b"hello")
    addresses = {"prb": (INFOS, printk_writer.PRB)}
    source = Source(ring.read, LITTLE_64, lambda name: addresses.get(name, ()), Layouts(ring.note()))
    assert texts(read_log(source)) == [b"hello"]


def test_no_symbols() -> None:
    with pytest.raises(TargetError, match="no symbols say where it is"):
        read_log(Source(Ring(LITTLE_64).read, LITTLE_64, lambda name: (), Layouts(None)))
