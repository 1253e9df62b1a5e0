"""The facts about a kernel file, by their names in `kplug.info/1`."""

from __future__ import annotations

from typing import Any

from kplug.commands.inspection import BOOT_IMAGE, DEBUG_FILE, MODULE, VMCORE, VMLINUX, Inspected, vmcoreinfo_text
from kplug.image.banner import Banner
from kplug.image.elf.file import ElfFile
from kplug.image.elf.header import file_header
from kplug.image.elf.notes import DecodedNote
from kplug.outputs import Hex, HumanSize, Size

_MAX_COMMENT_BYTES = 1 << 16
_MAX_COMMENTS = 8


def file_facts(file: Inspected) -> dict[str, Any]:
    """The facts of `kplug.info/1`, in the order in which they are shown."""
    container = dict(file.container)
    release = container.pop("release", None)
    facts: dict[str, Any] = {"path": file.path, "kind": file.kind, **container}
    if file.elf is not None:
        facts.update(_header_facts(file.elf))
    elif file.machine is not None:
        facts["machine"] = file.machine
    facts.update(_kernel_facts(file, release))
    if file.warnings:
        facts["warnings"] = list(file.warnings)
    return facts


def _header_facts(elf: ElfFile) -> dict[str, Any]:
    """The ELF header, as readelf -h shows it."""
    header = file_header(elf)
    return {
        "class": f"ELF{header.bits}",
        "byte_order": "little endian" if header.little_endian else "big endian",
        "os_abi": header.os_abi,
        "abi_version": header.abi_version,
        "type": header.type,
        "machine": header.machine,
        "machine_number": header.machine_number,
        "entry": Hex(header.entry),
        "flags": Hex(header.flags),
        "header_size": Size(header.header_size),
        "program_headers": header.program_headers,
        "program_headers_offset": Hex(header.program_headers_offset),
        "program_header_size": Size(header.program_header_size),
        "section_headers": header.section_headers,
        "section_headers_offset": Hex(header.section_headers_offset),
        "section_header_size": Size(header.section_header_size),
        "section_names": header.section_names,
    }


def _kernel_facts(file: Inspected, release: str | None) -> dict[str, Any]:
    if file.kind == VMCORE:
        return _dump_facts(file, release)
    known: dict[str, Any] = {
        "build_id": file.note_value("GNU", "BUILD_ID"),
        "build_salt": file.note_value("Linux", "BUILD_SALT"),
    }
    if file.kind == MODULE:
        vermagic = next((each.value for each in file.module_fields if each.key == "vermagic"), "")
        known = {"release": vermagic.split(" ")[0] or None, **known}
    elif file.kind in (VMLINUX, BOOT_IMAGE):
        known = {**banner_facts(file.banner), **known}
    if file.kind in (VMLINUX, BOOT_IMAGE) or (file.kind == MODULE and file.packed_config is not None):
        known["config"] = "in the image (IKCONFIG)" if file.packed_config is not None else "not in the image"
    if file.elf is not None and file.kind != DEBUG_FILE:
        known["comments"] = _comments(file.elf)
    return known


def banner_facts(banner: Banner | None) -> dict[str, Any]:
    """The facts in the banner; all None without a banner."""
    return {
        "release": banner and banner.release,
        "version": banner and banner.version,
        "built": banner and banner.built,
        "built_by": banner and banner.built_by,
        "compiler": banner and banner.compiler,
        "compiler_version": banner and banner.compiler_version,
        "linker": banner and banner.linker,
        "linker_version": banner and banner.linker_version,
        "banner": banner and banner.text,
    }


def _comments(elf: ElfFile) -> list[str]:
    """What the compilers wrote into .comment, each once."""
    section = elf.section(".comment")
    if section is None or section.size > _MAX_COMMENT_BYTES or section.type == "NOBITS":
        return []
    parts = elf.section_bytes(section, _MAX_COMMENT_BYTES).split(b"\0")
    return [part.decode("utf-8", "backslashreplace") for part in dict.fromkeys(parts) if part][:_MAX_COMMENTS]


def _dump_facts(file: Inspected, release: str | None) -> dict[str, Any]:
    from kplug.memory.vmcoreinfo import VmcoreInfo

    info = VmcoreInfo(vmcoreinfo_text(file) or "")
    notes = [note for note in file.notes if isinstance(note, DecodedNote)]
    facts: dict[str, Any] = {
        "release": info.release or release,
        "build_id": info.build_id,
        "page_size": info.page_size,
        "slide": None if info.kaslr_offset is None else Hex(info.kaslr_offset),
        "crash_time": info.others.get("CRASHTIME") or None,
        "cpus": sum(note.owner == "CORE" and note.name == "PRSTATUS" for note in notes),
        "vmcoreinfo": f"{len(info.text.splitlines())} lines" if info else None,
    }
    if file.elf is not None:
        loads = [segment for segment in file.elf.segments if segment.type == "LOAD"]
        facts["memory"] = HumanSize(sum(segment.memory_size for segment in loads))
        end = max((s.offset + s.file_size for s in file.elf.segments if s.file_size), default=0)
        facts["missing_bytes"] = Size(max(0, end - file.elf.size))
    return facts
