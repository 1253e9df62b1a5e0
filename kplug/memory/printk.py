"""The kernel's log in its memory: the records in printk's ring buffer. Needs no types where VMCOREINFO has the layouts.

Since 5.10 it is `prb` (kernel/printk/printk_ringbuffer.c): a ring of descriptors, each with a state in its upper two
bits, a ring of what is known of the records, and a ring of their texts. Before it was `log_buf`, with one record after
another from `log_first_idx` to `log_next_idx` (kernel/printk/printk.c). VMCOREINFO has either's symbols and layouts
(log_buf_vmcoreinfo_setup).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kplug.errors import TargetError
from kplug.frozen import Frozen
from kplug.memory.reading import FaultError, Read
from kplug.named_tuples import NamedTuple

if TYPE_CHECKING:
    from kplug.arch.types.word import WordFormat
    from kplug.memory.vmcoreinfo import VmcoreInfo
    from kplug.type_layouts import TypeLayouts

_PAGE = 4096  # no kernel has smaller ones
# CONFIG_LOG_BUF_SHIFT is 25 at most, log_buf_len= of the command line may be 2 GiB; a descriptor is for 32 bytes.
_MOST_BYTES = 1 << 31
_MOST_COUNT_BITS = 26
# What may be missing: as much as the largest CONFIG_LOG_BUF_SHIFT has. Where more is, a size is broken.
_MOST_MISSING = 1 << 25
# gdb's values are bounded (max-value-size), and so is the time in which a stub answers.
_AT_ONCE = 1 << 15
# enum desc_state, in the upper two bits of a descriptor's state_var.
_RESERVED, _COMMITTED, _FINALIZED = 0, 1, 2
# The first record has the ID -count, an unsigned int (DESC0_ID).
_FIRST_ID = 0xFFFFFFFF
# Of text_blk_lpos: both 3 for an empty line (EMPTY_LINE_LPOS); another odd number for a record whose text was lost.
_EMPTY_LINE = 3
# printk_caller_id(): the upper bit for a CPU, else a task.
_OF_CPU = 1 << 31
_OLD_RECORDS = ("printk_log", "log")  # the second is its name before 3.11


class Record(NamedTuple):
    """A message: its text in the bytes that were printed, which may have several lines. `time` is in nanoseconds,
    `caller` as the kernel has it; None if it does not keep that."""

    time: int
    caller: int | None
    text: bytes

    def lines(self, with_caller: bool) -> Iterator[bytes]:
        """Its lines, as the kernel prints them: each with all that comes before the text."""
        before = b"[%5d.%06d]" % (self.time // 1_000_000_000, self.time % 1_000_000_000 // 1000)
        if with_caller and self.caller is not None:
            kind = "C" if self.caller & _OF_CPU else "T"
            before += b"[%6s]" % f"{kind}{self.caller & ~_OF_CPU}".encode()
        return (b"%s %s" % (before, line) for line in self.text.split(b"\n"))


class PrintkLog(Frozen):
    """The records that could be read, in their order, and what is missing, a sentence each. `prints_callers`: the
    kernel is known to print who wrote a message (CONFIG_PRINTK_CALLER)."""

    records: Sequence[Record]
    missing: Sequence[str] = ()
    prints_callers: bool = False

    def text(self, with_callers: bool) -> bytes:
        """The log, as dmesg prints it."""
        return b"".join([b"%s\n" % line for record in self.records for line in record.lines(with_callers)])


class Layouts:
    """Sizes and offsets of the kernel's types: those in VMCOREINFO, else those of the sources of types."""

    def __init__(self, info: VmcoreInfo | None, types: Callable[[], Sequence[TypeLayouts]] = tuple) -> None:
        self._info = info
        self._types = types

    def size(self, name: str) -> int | None:
        """The size of `struct NAME`; None if it is not known."""
        noted = self._info.sizes.get(name) if self._info is not None else None
        if noted is not None:
            return noted
        return next((found.size for source in self._types() if (found := source.named("struct", name))), None)

    def offset(self, name: str, member: str) -> int | None:
        """Where a member of `struct NAME` is; None if that is not known, or there is none."""
        noted = self._info.offsets.get(f"{name}.{member}") if self._info is not None else None
        if noted is not None:
            return noted
        for source in self._types():
            found = source.named("struct", name)
            for each in found.members() if found is not None and found.members is not None else ():
                if each.name == member:
                    return each.bit_offset // 8
        return None


class Source(Frozen):
    """A kernel's memory: `symbols` gives the addresses of the variables with a name."""

    read: Read
    word: WordFormat
    symbols: Callable[[str], Sequence[int]]
    layouts: Layouts


def read_log(source: Source) -> PrintkLog:
    """The log of a kernel. TargetError, worded for the user, if there is none, or its form is not known."""
    for read, name in ((_of_ring, "prb"), (_of_buffer, "log_buf")):
        addresses = source.symbols(name)
        why: TargetError | None = None
        for address in addresses:  # other files of the kernel may have a variable of that name
            try:
                return read(source, address)
            except TargetError as error:
                why = why or error
        if why is not None:
            raise TargetError(f"the kernel's log ({name}): {why}")
    raise TargetError("the kernel's log: no symbols say where it is (prb, or log_buf before 5.10)")


class _Lost:
    """Which messages are missing, and the first reason why memory could not be read."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._errors: list[FaultError] = []

    def failed(self, error: FaultError) -> None:
        self._errors.append(error)

    @property
    def why(self) -> str:
        return str(self._errors[0])

    def unread(self) -> None:
        self._counts[f"cannot be read: {self.why}"] += 1

    def gone(self) -> None:
        self._counts["not in memory any more: overwritten, or never stored"] += 1

    def unfinished(self) -> None:
        self._counts["still being written"] += 1

    def sentences(self) -> Sequence[str]:
        return [f"{_messages(count)} of the kernel's log: {words}" for words, count in self._counts.items()]


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


class _Part:
    """A part of a ring in memory, from `first` on, as if the ring had no end. Pages of it may be missing."""

    def __init__(self, source: Source, lost: _Lost, ring: range, first: int, size: int) -> None:
        self._read, self._lost = source.read, lost
        self._missing: list[range] = []
        start = ring.start + first % len(ring)
        before_end = min(size, ring.stop - start)
        self._data = self._held(start, before_end, 0) + self._held(ring.start, size - before_end, before_end)

    def _held(self, start: int, size: int, at: int) -> bytes:
        steps = ((done, min(_AT_ONCE, size - done)) for done in range(0, size, _AT_ONCE))
        return b"".join([self._piece(start + done, count, at + done) for done, count in steps])

    def _piece(self, start: int, size: int, at: int) -> bytes:
        try:
            return self._read(start, size)
        except FaultError as error:
            pages = -(-(start % _PAGE + size) // _PAGE)
            if pages == 1:
                self._lost.failed(error)
                follows = self._missing and self._missing[-1].stop == at
                self._missing.append(range(self._missing.pop().start if follows else at, at + size))
                if sum(map(len, self._missing)) > _MOST_MISSING:
                    raise TargetError(f"too much of it cannot be read: {error}") from error
                return bytes(size)
            half = pages // 2 * _PAGE - start % _PAGE
            return self._piece(start, half, at) + self._piece(start + half, size - half, at + half)

    def at(self, offset: int, size: int) -> bytes | None:
        """The bytes there; None if some are missing."""
        if self._missing and any(each.start < offset + size and offset < each.stop for each in self._missing):
            return None
        return self._data[offset : offset + size]


def _known(layouts: Layouts, name: str, *members: str) -> list[int]:
    """The size of a type, and the offsets of members. TargetError if one is not known, or they cannot be."""
    size, offsets = layouts.size(name), [layouts.offset(name, member) for member in members]
    known = [each for each in offsets if each is not None]
    if size is None or len(known) < len(offsets):
        raise TargetError(f"neither VMCOREINFO nor debug information says what struct {name} is")
    if not all(0 <= each < size <= _PAGE for each in known):
        raise TargetError(f"what VMCOREINFO or debug information says of struct {name} is impossible")
    return [size, *known]


# -- since 5.10 --------------------------------------------------------------------------------------------------------


class _Descriptor(NamedTuple):
    """A record's number, its place in the ring of texts, and the bytes of what is known of it."""

    id: int
    begin: int
    next: int
    info: bytes


def _of_ring(source: Source, pointer: int) -> PrintkLog:
    read, word, layouts = source.read, source.word, source.layouts
    _, desc_ring, data_ring = _known(layouts, "printk_ringbuffer", "desc_ring", "text_data_ring")
    _, size_bits, texts = _known(layouts, "prb_data_ring", "size_bits", "data")
    _, time, length, caller = _known(layouts, "printk_info", "ts_nsec", "text_len", "caller_id")
    ring = word.at(read(pointer, word.size), 0)
    bits = word.unsigned(read(ring + data_ring + size_bits, 4), 0, 4)
    if not 0 < bits < _MOST_BYTES.bit_length():
        raise TargetError("there is no ring buffer where it says")
    start = word.at(read(ring + data_ring + texts, word.size), 0)
    lost = _Lost()
    found = list(_descriptors(source, ring + desc_ring, lost))
    placed = _Texts(source, lost, range(start, start + (1 << bits)), found)
    records = []
    for each in found:
        size = word.unsigned(each.info, length, 2)
        text = placed.text(each, size)
        if text is not None:
            time_of, caller_of = (word.unsigned(each.info, at, count) for at, count in ((time, 8), (caller, 4)))
            records.append(Record(time_of, caller_of, text))
    return PrintkLog(records, lost.sentences())


def _descriptors(source: Source, ring: int, lost: _Lost) -> Iterator[_Descriptor]:
    """The descriptors of the records whose text is complete, oldest first."""
    read, word, layouts = source.read, source.word, source.layouts
    _, *offsets = _known(layouts, "prb_desc_ring", "count_bits", "descs", "infos", "head_id", "tail_id")
    desc_size, state_at, place = _known(layouts, "prb_desc", "state_var", "text_blk_lpos")
    _, begin_at, next_at = _known(layouts, "prb_data_blk_lpos", "begin", "next")
    info_size, seq_at = _known(layouts, "printk_info", "seq")
    bits = word.unsigned(read(ring + offsets[0], 4), 0, 4)
    descs, infos, head, tail = (word.at(read(ring + offset, word.size), 0) for offset in offsets[1:])
    count, ids = 1 << bits, word.mask >> 2
    used = (head - tail & ids) + 1
    if not 0 < bits <= _MOST_COUNT_BITS or used > count:
        raise TargetError("there is no ring of descriptors where it says")
    first = tail % count
    states = _Part(source, lost, range(descs, descs + count * desc_size), first * desc_size, used * desc_size)
    known = _Part(source, lost, range(infos, infos + count * info_size), first * info_size, used * info_size)
    for at in range(used):
        id = tail + at & ids
        data, info = states.at(at * desc_size, desc_size), known.at(at * info_size, info_size)
        if data is None or info is None:
            lost.unread()
            continue
        value = word.at(data, state_at)
        if value & ids != id:
            lost.gone()
            continue
        state = value >> word.bits - 2
        if state == _RESERVED:
            lost.unfinished()
        if state not in (_COMMITTED, _FINALIZED):  # the fourth state is that of one that can be used again
            continue
        if word.unsigned(info, seq_at, 8) - (id + count) & ids & _FIRST_ID:
            lost.gone()
            continue
        yield _Descriptor(id, word.at(data, place + begin_at), word.at(data, place + next_at), info)


class _Texts:
    """The texts of records. One is after a word with the record's ID; where it would go beyond the ring's end, it is at
    the ring's start, after such a word too."""

    def __init__(self, source: Source, lost: _Lost, ring: range, descriptors: Sequence[_Descriptor]) -> None:
        self._word, self._lost, self._size = source.word, lost, len(ring)
        mask = source.word.mask
        blocks = [each for each in descriptors if not each.begin & 1 and each.next - each.begin & mask <= self._size]
        # Positions only grow, and begin again at 0 when a word has no more bits. The writers' order need not be theirs.
        self._origin = blocks[0].begin - self._size if blocks else 0
        end = max([self._position(each.next) for each in blocks], default=0)
        self._first = max(min([self._position(each.begin) for each in blocks], default=0), end - self._size)
        first = self._origin + self._first & mask
        self._data = _Part(source, lost, ring, first, end - self._first)

    def _position(self, place: int) -> int:
        return place - self._origin & self._word.mask

    def text(self, descriptor: _Descriptor, size: int) -> bytes | None:
        """The text of a record, which has that size; None if it is lost."""
        word, lost = self._word, self._lost
        if descriptor.begin == descriptor.next == _EMPTY_LINE:
            return b""
        begin, last = descriptor.begin, descriptor.next - 1 & word.mask
        if begin // self._size != last // self._size:
            begin = last - last % self._size
        at = self._position(begin) - self._first
        room = (descriptor.next - begin & word.mask) - word.size
        if descriptor.begin & 1 or at < 0 or not size <= room < self._size:
            lost.gone()
            return None
        data = self._data.at(at, word.size + size)
        if data is None:
            lost.unread()
            return None
        if word.at(data, 0) != descriptor.id:
            lost.gone()
            return None
        return data[word.size :]


# -- before 5.10 -------------------------------------------------------------------------------------------------------


def _of_buffer(source: Source, pointer: int) -> PrintkLog:
    read, word, layouts = source.read, source.word, source.layouts
    name = next((each for each in _OLD_RECORDS if layouts.size(each) is not None), _OLD_RECORDS[0])
    header, time, length, text_length = _known(layouts, name, "ts_nsec", "len", "text_len")
    caller = layouts.offset(name, "caller_id")

    def variable(name: str) -> int:
        addresses = source.symbols(name)
        if len(addresses) != 1:
            raise TargetError(f"there is no symbol {name}")
        return word.unsigned(read(addresses[0], 4), 0, 4)

    size, at, end = (variable(each) for each in ("log_buf_len", "log_first_idx", "log_next_idx"))
    start = word.at(read(pointer, word.size), 0)
    if not header <= size <= _MOST_BYTES or max(at, end) > size:
        raise TargetError("there is no buffer where it says")
    lost = _Lost()
    data = _Part(source, lost, range(start, start + size), 0, end if at <= end else size)
    records: list[Record] = []
    has_wrapped = at <= end
    while at != end:
        record = data.at(at, header)
        total = word.unsigned(record, length, 2) if record else 0
        if record is not None and not total and not has_wrapped:  # the rest is at the buffer's start
            at, has_wrapped = 0, True
            continue
        text_size = word.unsigned(record, text_length, 2) if record else 0
        if record is None or total < header + text_size or at + total > (end if has_wrapped else size):
            # Where the next one begins is not known.
            why = "broken there" if record is not None else lost.why
            return PrintkLog(records, [f"the kernel's log ends early: {why}"], caller is not None)
        text = data.at(at + header, text_size)
        if text is None:
            lost.unread()
        else:
            of = word.unsigned(record, caller, 4) if caller is not None else None
            records.append(Record(word.unsigned(record, time, 8), of, text))
        at += total
    return PrintkLog(records, lost.sentences(), caller is not None)
