"""The session that front ends work with: images in their places, the address space, the reading of expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from kplug import model
from kplug.arch.registry import named
from kplug.arch.types.memory_map import IMAGE_MAPPING
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.expressions import (
    NO_HINTS,
    Hints,
    Place,
    TypeHint,
    plain_address,
    with_hint,
)
from kplug.frozen import Frozen, replace
from kplug.image.images import as_images
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement
from kplug.kinds import in_order, of_program
from kplug.log_places import log_line
from kplug.memory.variables import static_facts
from kplug.model import Annotation
from kplug.plugins import installed_locators
from kplug.reader import NO_DRGN, Reader, read_hint
from kplug.resolver import LineSource, Locator, Resolver, StateSource
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, Area, address_space
from kplug.target import Target

if TYPE_CHECKING:
    from kplug.loaded_modules import ModuleSource
    from kplug.memory.percpu import Instances
    from kplug.module_files import UnplacedModules
    from kplug.outputs import InModule, Problem
    from kplug.records import Programs
    from kplug.type_layouts import TypeLayouts


# What the code at an address is.
_OF_CODE = frozenset((model.SECTION, model.REGION, model.SYMBOL, model.LINE, model.GAP))


class Missing(Frozen):
    """An optional part that is missing: what it is, what cannot be answered without it, and how to get it."""

    what: str
    cost: str
    remedy: str


class Session:
    """One kernel that questions are asked about.

    `images`: the vmlinux first, then modules. `target`: the debugger's side, None for files alone. `facts`: those of
    the address space, where more is known than the vmlinux shows, or a function that reads them at the first question.
    `machine`: the architecture, where no image gives it. `contents` finds what the kernel has put into the areas of the
    address space, for `kmap -v`. `warnings` go with every answer. `ways` are those in which the KASLR offset was
    sought, `host_facts` what the front end reports about itself, `missing` what it lacks. `percpu` finds each CPU's
    variables, `virtual` gives the kernel's addresses of a physical one, `types` are sources of types in the order to
    ask them, `modules` knows the loaded modules, `placement` is where the kernel is if there is no vmlinux to place,
    and `hints` are words for how to supply what is missing. `is_running`: it is the running kernel, of which no image
    is known. `unread` is what else may have an address in no image. `module_files` gives the files of modules without
    a place.
    """

    def __init__(
        self,
        images: Sequence[PlacedImage],
        *,
        target: Target | None = None,
        facts: AddressSpaceFacts | Callable[[], AddressSpaceFacts] | None = None,
        machine: str = "",
        contents: Callable[[], Iterable[Area]] | None = None,
        lines: LineSource | None = None,
        types: Sequence[TypeLayouts] = (),
        states: StateSource | None = None,
        locators: Sequence[Locator] = (),
        percpu: Instances | None = None,
        virtual: Callable[[int], Sequence[int]] | None = None,
        modules: ModuleSource | None = None,
        programs: Programs | None = None,
        placement: Placement | None = None,
        warnings: Sequence[str] = (),
        ways: Sequence[str] = (),
        host_facts: Mapping[str, str] | None = None,
        missing: Sequence[Missing] = (),
        hints: Hints = NO_HINTS,
        is_running: bool = False,
        unread: str | None = None,
        module_files: Callable[[], UnplacedModules] | None = None,
    ) -> None:
        self.images = as_images(images)
        self.target = target
        self.warnings = tuple(warnings)
        self.ways = tuple(ways)
        self.host_facts = dict(host_facts or {})
        self.missing = tuple(missing)
        self.hints = hints
        self.is_running = is_running
        self._unread = unread
        self._module_files = module_files
        self._facts = facts
        self.contents = contents
        self.machine = machine or (self.images[0].image.machine if self.images else "")
        #: How the kernel has its words.
        self.word = self.images[0].image.elf.word if self.images else named(self.machine).word()
        self._lines = lines
        self._types = tuple(types)
        self._states = states
        self._reader = Reader(self.images, target, hints, percpu, virtual, self.word, lines)
        self.modules = modules
        self._programs = programs
        self._is_program_asked = False
        self.placement = placement
        self._made: tuple[AddressSpaceFacts, AddressSpace | None, Resolver] | None = None
        self._locators = (*locators, *installed_locators(self))

    # Made at the first question: the space needs the symbols, and listing sections does not.

    @property
    def space(self) -> AddressSpace | None:
        """The address space of the images' architecture; None if kplug has no table of it."""
        return self._made_of(self._known_facts())[0]

    @property
    def resolver(self) -> Resolver:
        """The resolver that answers for addresses."""
        if self._made is not None and not callable(self._facts):
            return self._made[2]
        return self._made_of(self._known_facts())[1]

    def _known_facts(self) -> AddressSpaceFacts:
        """The facts as they are now: more may become known of a running kernel (it boots, memory is added)."""
        return self._facts() if callable(self._facts) else self._fixed_facts

    @cached_property
    def _fixed_facts(self) -> AddressSpaceFacts:
        assert not callable(self._facts)
        if self._facts is not None:
            return self._facts
        return (
            static_facts(self.images[0]) if self.images and not self.images[0].image.is_module else AddressSpaceFacts()
        )

    def _made_of(self, facts: AddressSpaceFacts) -> tuple[AddressSpace | None, Resolver]:
        """The space and the resolver, which depend on the facts; kept as long as these are the same."""
        made = self._made
        if made is None or (made[0] is not facts and made[0] != facts):
            space = address_space(self.machine, facts)
            resolver = Resolver(self.images, space, locators=self._locators, lines=self._lines, states=self._states)
            made = self._made = facts, space, resolver
        return made[1:]

    @property
    def main(self) -> PlacedImage | None:
        """The vmlinux, or None."""
        return self.images.main

    def places(self, expression: str) -> tuple[Place, ...]:
        """The runtime addresses an expression, or a line of a log, means."""
        return self._reader.places(expression)

    @contextmanager
    def program(self, pid: int | None) -> Iterator[None]:
        """Inside, user addresses are those of the task with that ID; with None those of the selected one.

        UsageError if there is no such task, or no memory in which it could be; TargetError if it cannot be read.
        """
        if pid is None:
            yield
            return
        if self._programs is None:
            if self.target is not None and self.target.has_memory():
                raise UsageError(f"--pid {pid}: processes are found by drgn, and {NO_DRGN}")
            raise UsageError(with_hint(f"--pid {pid}: needs the memory of a kernel, through drgn", self.hints.memory))
        with self._programs.of(pid):
            self._is_program_asked = True
            try:
                yield
            finally:
                self._is_program_asked = False

    def read(self, address: int, size: int) -> bytes:
        """Bytes of memory; inside `program` those at user addresses are that program's. TargetError if unreadable."""
        if self._is_program_asked and self.space is not None and self.space.is_user(address):
            assert self._programs is not None
            return self._programs.read(address, size)
        assert self.target is not None
        return self.target.read(address, size)

    def _of_program(self, annotation: Annotation) -> Annotation:
        """The answer for an address that is known to be a program's: no per-CPU variable's offset, not near NULL."""
        if self.space is None or not self.space.is_user(annotation.address):
            return annotation
        layers = tuple(each for each in annotation.layers if of_program(each))
        return replace(annotation, link_address=None, region_class=model.NO_CLASS, layers=layers)

    def where(self, expression: str) -> Iterator[Annotation]:
        """The answers for one expression: one, or several where symbols share the name. Raises KplugError."""
        annotation = self.where_plain(expression)
        if annotation is not None:
            yield annotation
            return
        hint = read_hint(expression)
        for place in self.places(expression):
            annotation = self._answer(place.address, expression)
            if place.within is not None and annotation.last(model.SYMBOL) is None:
                annotation = self._within(annotation, place.within)
            yield self._complete(annotation, hint, place.note)

    def where_plain(self, expression: str) -> Annotation | None:
        """The answer for an address as nearly all of a long log are written (`plain_address`); None for all else."""
        address = plain_address(expression)
        if address is None:
            return None
        annotation = self.resolver.where(address, expression)
        # Nearly always, and for each line of a long log, there is nothing to add.
        is_quiet = annotation.link_address is not None and self._is_quiet and not self.warnings
        return annotation if is_quiet and not self._is_program_asked else self._complete(annotation)

    def _complete(self, annotation: Annotation, hint: TypeHint | None = None, note: str | None = None) -> Annotation:
        """The answer with what only the session knows, and all warnings."""
        if self._is_program_asked:
            annotation = self._of_program(annotation)
        if hint is not None:
            annotation = self._with_member(annotation, hint)
        warnings = (*self._warnings(annotation), *annotation.warnings, *(() if note is None else (note,)))
        # What keeps a locator from its answer may keep the session from the facts of the address space, too.
        return replace(annotation, warnings=tuple(dict.fromkeys(warnings))) if warnings else annotation

    def _answer(self, address: int, expression: str) -> Annotation:
        """The answer; of a program counter to which a call returns, that of the call: it may be a function's last."""
        answer = self.resolver.where(address, expression)
        if self.target is None or not self._is_program_counter(expression):
            return answer
        if not self.target.pc_returns():
            from kplug.small_addresses import as_place  # only a debugger has a program counter

            return as_place(answer)
        call = self.resolver.where(address - 1, expression)
        kept = [layer for layer in answer.layers if layer.kind not in _OF_CODE]
        layers = in_order([kept, [layer for layer in call.layers if layer.kind in _OF_CODE]])
        return replace(answer, region_class=call.region_class, layers=tuple(layers))

    def in_modules(self, expression: str) -> Sequence[InModule | Problem]:
        """The answers for a line of a log that names a module which is not loaded here, from the module's file; none
        where that is no such line, or has no file."""
        line = log_line(expression)
        if self._module_files is None or line is None or len(line.mentions) != 1:
            return ()
        mention = line.mentions[0]
        if mention.module is None or mention.symbol is None or mention.unplaced is not None:
            return ()
        if mention.offset is None and mention.address is not None:
            return ()  # the address counts
        if self.images.named(mention.module) is not None:
            return ()
        return tuple(self._module_files().answers(mention, expression))

    def _within(self, annotation: Annotation, within: range) -> Annotation:
        """The answer with what begins before the address, and ends where the question says."""
        start = self.resolver.where(within.start)
        layers = []
        for layer in start.layers:
            if layer.kind == model.SYMBOL:
                details = {**layer.details, "size": len(within), "sizeless": False}
                layers.append(
                    replace(layer, end=within.stop, source=f"{layer.source}, its size as asked", details=details)
                )
            elif layer.kind == model.MODULE:
                layers.append(layer)
        return replace(annotation, region_class=start.region_class, layers=tuple(in_order([annotation.layers, layers])))

    def _is_program_counter(self, expression: str) -> bool:
        if not expression.startswith("$"):
            return False
        from kplug.arch.registers import canonical  # most expressions are no registers

        return canonical(expression[1:], self.machine)[0] == canonical("pc", self.machine)[0]

    def _with_member(self, annotation: Annotation, hint: TypeHint) -> Annotation:
        """The answer, with the member of the type that the question names."""
        from kplug.members import type_named, with_member  # few questions name a type

        layout, source = type_named(hint.type, self.types())
        start = None
        if hint.start:
            places = self.places(hint.start)
            if len(places) != 1:
                raise ExpressionError(f"{hint.start}: stands for {len(places)} addresses")
            start = places[0].address
        return with_member(annotation, layout, source, start)

    def types(self) -> Sequence[TypeLayouts]:
        """The sources of types: the host's own, then the BTF in the kernel's file, or in its memory."""
        from kplug.memory.btf import btf_layouts

        main = self.main
        read = self.target.read if self.target is not None and self.target.has_memory() else None
        own = btf_layouts(main, read) if main is not None else None
        return self._types if own is None else (*self._types, own)

    def _warnings(self, annotation: Annotation) -> tuple[str, ...]:
        if self._is_quiet and _is_in_image(annotation):
            return self.warnings
        specific = (*self._link_address_warning(annotation), *self._image_warnings(annotation))
        specific = (*specific, *self._program_warnings(annotation), *self._unread_note(annotation))
        return (*self.warnings, *self._space_warnings(annotation), *specific)

    def _unread_note(self, annotation: Annotation) -> tuple[str, ...]:
        """What could tell more of an address in no image, at the first such one; a special value is none."""
        special = annotation.first(model.SPECIAL)
        if self._unread is None or annotation.first(model.MODULE) is not None or _is_in_image(annotation):
            return ()
        if special is not None and special.details["what"] != "user":
            return ()
        note, self._unread = self._unread, None
        return (note,)

    def _program_warnings(self, annotation: Annotation) -> tuple[str, ...]:
        """Why a user address is not found in any program."""
        special = annotation.first(model.SPECIAL)
        if special is None or special.details["what"] != "user" or self._programs is None:
            return ()
        try:
            problem = self._programs.problem()
        except TargetError:  # the answer says so already
            return ()
        return (problem,) if problem is not None else ()

    def _space_warnings(self, annotation: Annotation) -> tuple[str, ...]:
        """Impossible facts of the address space. They do not matter for an address in an image."""
        return self.space.warnings if self.space is not None and not _is_in_image(annotation) else ()

    def _link_address_warning(self, annotation: Annotation) -> tuple[str, ...]:
        """A hint where offset and address do not fit: a link address for a kernel that was moved, or the reverse."""
        main = self.main
        if main is None or _is_in_image(annotation):
            return ()
        if not main.placement.known and main.placement.link_known:
            area = annotation.first(model.AREA)
            root = main.image.regions.root
            is_end = root is not None and annotation.address == main.placement.runtime(root.end)
            if area is not None and area.name == IMAGE_MAPPING and not is_end:
                moved = "outside the kernel as linked, which may have been moved (KASLR): its KASLR offset is not known"
                return (with_hint(moved, self.hints.kaslr_offset),)
        # On arm64, once the image was moved, vmalloc areas such as stacks lie where it was linked.
        if not main.placement.kaslr_offset or annotation.state.mapped:
            return ()
        runtime = main.placement.runtime(annotation.address)
        if runtime == annotation.address or main.piece(runtime) is None:
            return ()
        return (f"not in the moved kernel; if it is a link address, its place is {runtime:#x}",)

    def _image_warnings(self, annotation: Annotation) -> tuple[str, ...]:
        """Warnings about the image that holds the address: for example, why an answer ends at the section."""
        if annotation.first(model.IMAGE) is None and annotation.first(model.MODULE) is None:
            return ()
        try:
            found = self.images.holding(annotation.address)
        except TargetError:  # the answer says so already
            return ()
        if found is None:
            return ()
        placed, _ = found
        if placed.image.symbols:
            return (*placed.warnings, *placed.disagreements(annotation))
        from kplug.image.opening.debug_files import why_no_symbols  # few images have none

        why = f"{placed.image.path}: {why_no_symbols(placed.image)}, so symbols and regions are not known"
        return (*placed.warnings, why)

    @cached_property
    def _is_quiet(self) -> bool:
        """Whether the vmlinux has symbols, and there are no warnings about their source."""
        main = self.main
        return main is not None and not main.warnings and not main.disputed and bool(main.image.symbols)


def _is_in_image(annotation: Annotation) -> bool:
    """Whether the address lies in the kernel's own image. If the link address is known, it does."""
    return annotation.link_address is not None or annotation.first(model.IMAGE) is not None
