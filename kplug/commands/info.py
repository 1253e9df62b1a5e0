"""kinfo: the content of a kernel file, as readelf -a shows it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Command, add_json_argument
from kplug.commands.layout import FILE_SECTION_COLUMNS, FILE_SEGMENT_COLUMNS, section_table, segment_table
from kplug.commands.notes import LINE, add_file_argument, image_file, note_outputs, running_notes, runs_here
from kplug.errors import UsageError
from kplug.outputs import Column, Hex, NamedFacts, Output, Problem, Table

if TYPE_CHECKING:
    from kplug.commands.inspection import Inspected
    from kplug.image.kernel_image import KernelImage
    from kplug.image.placed import PlacedImage
    from kplug.session import Session

_RUNNING_BANNER = "/proc/version"
_RUNNING_CONFIG = "/proc/config.gz"  # CONFIG_IKCONFIG_PROC
_MAX_BANNER_BYTES = 512


def _info(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    from kplug.commands.inspection import inspect
    from kplug.image.symbols.listings import is_listing

    if arguments.file and is_listing(arguments.file):
        from kplug.image.opening.symbol_list_kernel import open_system_map

        yield from _image_info(open_system_map(arguments.file), arguments)
        return
    if arguments.file:
        yield from _file_info(inspect(arguments.file), arguments)
        return
    if arguments.config and os.path.isfile(arguments.config):
        raise UsageError(f"--config takes the name of an option; put the file first: {arguments.config} --config")
    if session.is_running:
        yield from _running_info(arguments)
        return
    if not session.images.given:
        raise UsageError("no image is loaded, and no FILE given")
    given = [placed.image for placed in session.images.given]
    listed = [image for image in given if _is_in_a_list(image)]
    for image in given:
        if image.is_module and _is_in_a_list(image):
            continue
        file = image_file(image)
        if file is not None:
            yield from _file_info(file, arguments)
        else:
            yield from _image_info(image, arguments, sum(each.is_module for each in listed))


def _file_info(file: Inspected, arguments: argparse.Namespace) -> Iterator[Output]:
    from kplug.commands.file_facts import file_facts

    if arguments.config is not None:
        yield from _config(file.path, file.config(), arguments.config)
        return
    yield NamedFacts("kplug.info/1", file_facts(file))
    if file.module_fields:
        rows = [
            {"key": each.key, "value": each.value, "parameter": each.parameter, "type": each.type, "path": file.path}
            for each in file.module_fields
        ]
        yield Table("kplug.modinfo/1", (Column("FIELD", "key"), Column("VALUE", "value")), rows)
    if file.elf is not None and (file.elf.sections or file.elf.segments):
        placed = _unplaced(file)
        if placed.image.sections:
            yield section_table(placed, FILE_SECTION_COLUMNS)
        if placed.image.segments:
            yield segment_table(placed, FILE_SEGMENT_COLUMNS)
    yield from note_outputs(file.notes, file.path)


def _unplaced(file: Inspected) -> PlacedImage:
    """The ELF file as an image at its own addresses."""
    from kplug.image.kernel_image import KernelImage
    from kplug.image.placed import PlacedImage
    from kplug.image.placement import as_linked

    assert file.elf is not None
    image = KernelImage(file.elf, bases={} if file.elf.relocatable else None)
    return PlacedImage(image, as_linked(image.sections))


def _is_in_a_list(image: KernelImage) -> bool:
    """Whether nothing but a list of symbols is known of it: System.map, a saved /proc/kallsyms."""
    bare = not image.elf.sections and not image.elf.segments
    return bare and image.listed is not None and image_file(image) is None and os.path.isfile(image.path)


def _list_facts(image: KernelImage, modules: int) -> dict[str, Any]:
    """What a list of symbols contains about its kernel; `modules` are the modules in the list."""
    listed = image.listed
    if listed is None:
        return {}
    bounds = {key: listed.boundary_address(name) for key, name in (("image_start", "_text"), ("image_end", "_end"))}
    facts: dict[str, Any] = {"symbols": len(listed)}
    facts.update({key: Hex(address) for key, address in bounds.items() if address is not None})
    return {**facts, "modules": modules} if modules else facts


def _image_info(image: KernelImage, arguments: argparse.Namespace, modules: int = 0) -> Iterator[Output]:
    """What is known about an image that is not a file (it was read from memory, or is a list of symbols)."""
    from kplug.commands.file_facts import banner_facts
    from kplug.image.banner import parse_banner

    if arguments.config is not None:
        text = _running_config() if runs_here(image) else None
        if text is None:
            yield Problem(f"{image.path}: the configuration can only be read from an image's file, and this is not one")
        else:
            yield from _config(_RUNNING_CONFIG, text, arguments.config)
        return
    line = image.banner or (_running_banner() if runs_here(image) else None)
    banner = parse_banner(line) if line is not None else None
    kind = "module" if image.is_module else "list of symbols" if os.path.isfile(image.path) else "kernel in memory"
    facts = {"path": image.path, "kind": kind, "machine": image.machine}
    if _is_in_a_list(image):
        facts.update(_list_facts(image, modules))
    named = {**banner_facts(banner), "build_id": image.build_id}
    # No list of symbols has a banner: what it cannot contain is left out, not reported as unknown.
    yield NamedFacts("kplug.info/1", {**facts, **{key: value for key, value in named.items() if value is not None}})


def _running_info(arguments: argparse.Namespace) -> Iterator[Output]:
    """What the running kernel shows to every user."""
    from kplug.commands.file_facts import banner_facts
    from kplug.image.banner import parse_banner
    from kplug.live import running_build_id
    from kplug.live.machine import Machine

    if arguments.config is not None:
        text = _running_config()
        if text is None:
            yield Problem(f"{_RUNNING_CONFIG} is missing (CONFIG_IKCONFIG_PROC) or cannot be read")
        else:
            yield from _config(_RUNNING_CONFIG, text, arguments.config)
        return
    line = _running_banner()
    facts = {"path": _RUNNING_BANNER, "kind": "running kernel", "machine": Machine().architecture}
    banner = parse_banner(line) if line is not None else None
    yield NamedFacts("kplug.info/1", {**facts, **banner_facts(banner), "build_id": running_build_id()})
    for path, notes in running_notes():
        yield from note_outputs(notes, path)


def _config(path: str, text: str, pattern: str) -> Iterator[Output]:
    """A configuration: all of it, or the options that match a pattern."""
    from kplug.image.kernel_config import config_lines

    lines = config_lines(text, pattern) if pattern else text.splitlines()
    if not lines:
        yield Problem(f"{path}: no option {pattern} in its configuration")
        return
    yield Table("kplug.config/1", LINE, [{"line": line, "path": path} for line in lines])


def _running_banner() -> bytes | None:
    try:
        with open(_RUNNING_BANNER, "rb") as file:
            return file.read(_MAX_BANNER_BYTES)
    except OSError:
        return None


def _running_config() -> str | None:
    """The running kernel's configuration; None if it is not available. InputError if it is broken."""
    from kplug.image.kernel_config import MAX_PACKED_BYTES, config_text

    try:
        with open(_RUNNING_CONFIG, "rb") as file:
            return config_text(_RUNNING_CONFIG, file.read(MAX_PACKED_BYTES))
    except OSError:
        return None


def _add_info_arguments(parser: argparse.ArgumentParser) -> None:
    add_file_argument(parser)
    parser.add_argument(
        "--config",
        nargs="?",
        const="",
        metavar="NAME",
        help="print the configuration in the image (IKCONFIG), or only the options called NAME (* and ? allowed)",
    )
    add_json_argument(parser)


INFO = Command(
    name="info",
    summary="what is in a kernel file: header, kernel, sections, segments, notes",
    description="""Show what is in a kernel file: header, release, compiler, build ID, sections,
segments, notes. A vmlinux, a module (.ko, packed too), a vmcore, a vmlinuz, a flat Image, a debug file,
a System.map.""",
    examples=(
        ("vmlinuz", "what is in a boot image"),
        ("ext4.ko.xz", "a module: vermagic, parameters, ..."),
        ("vmcore", "a dump: release, CPUs, notes"),
        ("vmlinux --config=IKCONFIG*", "options in the image's own configuration"),
    ),
    add_arguments=_add_info_arguments,
    run=_info,
    file_word="file",
)
