"""A machine's memory without headers, and with LiME's: made of an ELF dump, which is the truth about it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.open_dumps import session_in
from support.threads import asleep, target_of

from kplug.errors import InputError, TargetError
from kplug.memory.dump_header import read_header
from kplug.runtime.opening.request import Request
from kplug.runtime.session import open_session
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]
_PIECE = 1 << 20


class Images(NamedTuple):
    lime: str
    raw: str
    ranges: str


@pytest.fixture(scope="module")
def images(dumps_61: DumpSet, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The dump's memory in both forms, zeros as holes."""
    folder, elf = tmp_path_factory.mktemp("images"), dumps_61.paths["elf"]
    ranges = []
    with elf.open("rb") as source, (folder / "lime").open("wb") as lime, (folder / "raw").open("wb") as raw:
        for segment in read_header(str(elf)).segments:
            first, last = segment.physical, segment.physical + segment.file_size - 1
            ranges.append(f"{first:x}-{last:x}")
            lime.write(struct.pack("<IIQQQ", 0x4C694D45, 1, first, last, 0))
            source.seek(segment.offset)
            for at in range(0, segment.file_size, _PIECE):
                piece = source.read(min(_PIECE, segment.file_size - at))
                for out in (lime, raw):
                    if piece.strip(b"\0"):
                        out.write(piece)
                    else:
                        out.seek(len(piece), 1)
        for out in (lime, raw):
            out.truncate()
    return Images(str(folder / "lime"), str(folder / "raw"), ",".join(ranges))


@pytest.fixture(scope="module")
def dump(dumps_61: DumpSet) -> Session:
    return session_in(dumps_61, vmlinux=False)


def sleepers(session: Session) -> dict[int, list[int]]:
    """The stacks of the tasks that do not run."""
    selection = target_of(session).selection
    found = {}
    for task in asleep(session):
        selection.select_thread(task.pid.value_())
        found[task.pid.value_()] = [frame.pc for frame in selection.frames()]
    return found


def places(session: Session, name: str) -> list[tuple[str, str, int | None, int | None]]:
    (found,) = session.where(name)
    return [(layer.kind, layer.name, layer.start, layer.end) for layer in found.layers]


@pytest.mark.parametrize("form", ["lime", "raw"])
def test_it_answers_as_the_dump_does(images: Images, dump: Session, form: str) -> None:
    request = Request(images.lime) if form == "lime" else Request(images.raw, raw=images.ranges)
    session = open_session(request)
    assert not session.warnings
    for name in ("schedule", "init_task", "linux_banner"):
        assert places(session, name) == places(dump, name)
    if form == "lime":
        assert len(sleepers(session)) > 20
        assert sleepers(session) == sleepers(dump)
    selection = target_of(session).selection
    selection.select_cpu(0)
    with pytest.raises(TargetError, match="registers for CPU 0 were not saved"):
        selection.frames()


def test_wrong_ranges_are_not_believed(images: Images, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the VMCOREINFO of 6\.1\..* its physical ranges are others"):
        open_session(Request(images.raw, raw="100000"))
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(1 << 20))
    with pytest.raises(InputError, match="no VMCOREINFO in it, nor in its memory: not the memory of a Linux kernel"):
        open_session(Request(str(empty), raw="0"))
    with pytest.raises(InputError, match=r"not a dump: .* \(a raw image of memory is opened with --raw "):
        open_session(Request(images.raw))
