"""A real dump in three files (makedumpfile --split) is one dump. Truth: the same dump in one file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import drgn
import pytest
from support.open_dumps import session_in
from support.threads import target_of

from kplug.errors import InputError, TargetError
from kplug.memory.reading import Read
from kplug.memory.split_dump import missing, part_of
from kplug.runtime.attached import session_for
from kplug.runtime.kernel.kernel import MISSING_PART
from kplug.runtime.opening.request import Request
from kplug.runtime.session import open_session
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# In all three parts: the kernel's image, its data and the stacks are far apart.
SYMBOLS = ("_text", "linux_banner", "init_task", "jiffies", "init_uts_ns")


@pytest.fixture(scope="module")
def whole(crashed: DumpSet) -> Session:
    return session_in(crashed, "zlib-d31", vmlinux=False)


def parts(crashed: DumpSet) -> list[Path]:
    names = [f"split-d31-{number}" for number in (1, 2, 3)]
    if names[0] not in crashed.paths:
        pytest.skip("no tool here makes it")
    return [crashed.paths[name] for name in names]


def apart(crashed: DumpSet, folder: Path) -> list[str]:
    """The parts, each in a folder of its own."""
    copies = []
    for number, part in enumerate(parts(crashed)):
        (folder / str(number)).mkdir()
        copies.append(str(shutil.copy(part, folder / str(number) / "vmcore")))
    return copies


def frames(session: Session) -> list[tuple[int, str | None]]:
    selection = target_of(session).selection
    found = []
    for cpu in (0, 2, 3):
        selection.select_cpu(cpu)
        found += [(frame.pc, frame.function) for frame in selection.frames()]
    return found


def places(session: Session, name: str) -> list[tuple[str, str, int | None, int | None]]:
    (found,) = session.where(name)
    return [(layer.kind, layer.name, layer.start, layer.end) for layer in found.layers]


def test_a_part_opens_all_that_lie_beside_it(crashed: DumpSet, whole: Session) -> None:
    session = open_session(Request(str(parts(crashed)[1])))
    assert not session.warnings
    assert frames(session) == frames(whole)
    for name in SYMBOLS:
        address = crashed.truth.address(name)
        assert session.target.read(address, 16) == whole.target.read(address, 16)
        assert places(session, name) == places(whole, name)


def test_parts_of_different_folders_are_given_together(crashed: DumpSet, whole: Session, tmp_path: Path) -> None:
    first, *others = apart(crashed, tmp_path)
    session = open_session(Request(first, core_parts=tuple(others)))
    assert not session.warnings
    assert frames(session) == frames(whole)


def test_what_is_missing_is_said_with_every_answer(crashed: DumpSet, tmp_path: Path) -> None:
    # KASLR puts the image anywhere, even into the last part alone.
    path = next(path for path in reversed(apart(crashed, tmp_path)) if not has_code(path, crashed))
    session = open_session(Request(path))
    (warning,) = [warning for warning in session.warnings if "split" in warning]
    assert warning.startswith(f"{path}: only one part of a split dump (makedumpfile --split): ")
    assert warning.endswith(" are missing (give each with another -c)")
    with pytest.raises(TargetError, match="the page is in a part of the split dump that is missing"):
        session.target.read(crashed.truth.address("_text"), 16)


def has_code(path: str, crashed: DumpSet) -> bool:
    """Whether the part has the first page of the kernel's code, by the guest's own /proc/iomem."""
    part, code = part_of(path), re.search(r"(\w+)-\w+ : Kernel code", crashed.truth.text("iomem"))
    assert part is not None
    assert code is not None
    return part.start <= int(code[1], 16) < part.end


@pytest.mark.parametrize("number", [0, 1, 2])
def test_drgns_own_prompt_says_the_same_of_a_part(crashed: DumpSet, tmp_path: Path, number: int) -> None:
    """There the library has opened the file, and calls excluded whatever is in the others."""
    path = apart(crashed, tmp_path)[number]
    prog = drgn.Program()
    prog.set_core_dump(path)
    asked, own = session_for(prog), open_session(Request(path))
    (warning,) = asked.warnings
    assert warning in own.warnings
    part = part_of(path)
    assert part is not None
    for gap in missing([part]):
        for physical in (gap.start, gap.stop - 8):
            words = [said(target_of(session).kernel.read_physical, physical) for session in (asked, own)]
            assert words == [f"{MISSING_PART}: {physical:#x}"] * 2
    # Of these no page was excluded: where one cannot be read, it or a page table is in another part.
    found = [said(asked.target.read, crashed.truth.address(name)) for name in SYMBOLS]
    assert all(MISSING_PART in words for words in found if words)


def said(read: Read, address: int) -> str:
    """The error of a read; nothing of one that succeeds."""
    try:
        read(address, 8)
    except TargetError as error:
        return str(error)
    return ""


def test_another_dump_is_no_part(crashed: DumpSet) -> None:
    first, second, _ = map(str, parts(crashed))
    other = str(crashed.paths["zlib-d31"])
    with pytest.raises(InputError, match=f"^{other}: not a part of the dump that {first} is a part of$"):
        open_session(Request(first, core_parts=(other,)))
    with pytest.raises(InputError, match=f"^{second}: several -c are for the parts of a split dump"):
        open_session(Request(other, core_parts=(second,)))
