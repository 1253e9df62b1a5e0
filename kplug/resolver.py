"""The resolver: what is this address? One answer (`where`), or many in columns (`bulk`).

It only combines: each *locator* knows one kind of thing and yields the layers that hold an address; the layers' kinds
(`kplug.kinds`) give their order. A new kind of address is one more locator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from kplug import model
from kplug.arch.registry import named
from kplug.arch.types.word import WIDEST_BITS
from kplug.errors import TargetError
from kplug.frozen import replace
from kplug.image.images import as_images
from kplug.image.placed import Piece, PlacedImage
from kplug.kinds import in_order, kind_of
from kplug.model import UNKNOWN_STATE, Annotation, Layer, State
from kplug.space.address_space import AddressSpace
from kplug.space.locators import PERCPU_OFFSET, PERCPU_TEMPLATE, AreaLocator, SpecialLocator
from kplug.stretches import Stretches

if TYPE_CHECKING:
    from kplug.image.columns import Columns


class Locator(Protocol):
    """Something that knows one kind of thing in the address space."""

    def locate(self, address: int) -> Iterable[Layer]:
        """The layers that hold a runtime address, widest first, if any.

        TargetError, worded for the user, if memory that is needed cannot be read: it becomes a warning, and the rest
        of the answer stands.
        """


class LineSource(Protocol):
    """Something that knows source lines: a debugger, or a DWARF library."""

    def line_layers(self, address: int, link_address: int, image: PlacedImage) -> Iterable[Layer]:
        """The `line` layer of an address, or nothing."""


class StateError(TargetError):
    """Part of the state of an address could not be read; `state` has the rest."""

    def __init__(self, message: str, state: State) -> None:
        super().__init__(message)
        self.state = state


class StateSource(Protocol):
    """Something that knows the state of the target's memory."""

    def state(self, address: int) -> State:
        """Whether the address is mapped, and how; unknown facts are None.

        TargetError, or StateError, for what cannot be read; it becomes a warning.
        """


def _implied_class(layers: Iterable[Layer]) -> str:
    """The class of an address in no image, where a layer says one."""
    for layer in layers:
        implied = kind_of(layer).implies or layer.details.get("class")
        if implied:
            return str(implied)
    return model.NO_CLASS


class Resolver:
    """Answers for one kernel: its images in their places, its address space, and further locators.

    `locators` are asked after the images, in order; `lines` and `states` where given.
    """

    def __init__(
        self,
        images: Sequence[PlacedImage],
        space: AddressSpace | None = None,
        *,
        locators: Sequence[Locator] = (),
        lines: LineSource | None = None,
        states: StateSource | None = None,
    ) -> None:
        self.images = as_images(images)
        self.space = space
        machine = images[0].image.machine if images else space.machine if space else ""
        word = images[0].image.elf.word if images else named(machine).word()
        self._bits = None if word.bits == WIDEST_BITS else word.bits
        self._area = AreaLocator(space) if space else None
        self._special = SpecialLocator(machine, space, word)
        self._percpu_offset = images[0].placement.unmoved if images else None
        self._locators = tuple(locators)
        self.lines = lines
        self.states = states
        self.stretches = None
        if self.images.main is not None and not self._locators and lines is None and states is None:
            self.stretches = Stretches(self.images.main, space, self._area)

    def without_lines(self) -> Resolver:
        """This resolver without source lines: what else it answers for an address may serve those around it."""
        if self.lines is None:
            return self
        return Resolver(self.images, self.space, locators=self._locators, states=self.states)

    def where(self, address: int, text: str | None = None) -> Annotation:
        """The whole answer for one runtime address. `text` is what the user typed, kept in the answer."""
        known = self.stretches.at(address) if self.stretches is not None else None
        if known is not None:
            _, moved, region_class, shared = known
            link_address = None if moved is None else address - moved
            text = f"{address:#x}" if text is None else text
            return Annotation(text, address, link_address, region_class, shared, bits=self._bits)
        link_address = None
        region_class = model.NO_CLASS
        image_layers: tuple[Layer, ...] = ()
        warnings: list[str] = []
        held: Piece | None = None
        try:
            found = self.images.holding(address)
        except TargetError as error:  # of a module that is in memory alone
            found = None
            warnings.append(str(error))
        if found is not None:
            placed, held = found
            link_address = placed.link_address(address)
            region_class = held.region_class
            image_layers = placed.layers(address, held)
            if self.lines is not None:
                image_layers += tuple(self.lines.line_layers(address, placed.placement.link(address), placed))
        is_percpu_offset = self._percpu_offset is not None and address in self._percpu_offset
        if held is not None and held.region_class == model.PERCPU_CLASS and not address >> 32:
            is_percpu_offset = is_percpu_offset or self._is_modules_offset(placed)
        groups: list[Iterable[Layer]] = [self._area.locate(address)] if self._area else []
        if is_percpu_offset or not image_layers:
            groups.append(self._special.locate(address))
        if is_percpu_offset:
            groups.append((PERCPU_OFFSET,))
        elif held is not None and held.region_class == model.PERCPU_CLASS:
            groups.append((PERCPU_TEMPLATE,))
        groups.append(image_layers)
        for locator in self._locators:
            found_here: list[Layer] = []
            groups.append(found_here)
            try:
                for layer in locator.locate(address):  # one by one: what was found before an error stands
                    found_here.append(layer)
            except TargetError as error:
                warnings.append(str(error))
        layers = in_order(groups)
        if region_class == model.NO_CLASS:
            region_class = _implied_class(layers)
        state = UNKNOWN_STATE
        if self.states is not None:
            try:
                state = self.states.state(address)
            except TargetError as error:
                warnings.append(str(error))
                state = error.state if isinstance(error, StateError) else UNKNOWN_STATE
            if state.mapped and state.freed is None and held is not None and held.freed_after_boot is False:
                state = replace(state, freed=False)  # the kernel never frees it, so its page need not be read
        return Annotation(
            input=text if text is not None else f"{address:#x}",
            address=address,
            link_address=link_address,
            region_class=region_class,
            layers=tuple(layers),
            state=state,
            warnings=tuple(dict.fromkeys(warnings)) if warnings else (),
            bits=self._bits,
        )

    @staticmethod
    def _is_modules_offset(placed: PlacedImage) -> bool:
        """Whether a low address of the image's per-CPU variables is an offset: no 64-bit module is loaded there."""
        return placed.image.is_module and placed.image.elf.bits == 64

    def bulk(self, addresses: Iterable[int]) -> Columns:
        """The images' answers for many runtime addresses, in columns; no object is made for an address.

        For logs, stacks and scans. Areas, special values, source lines and other locators are left out.
        """
        from kplug.image.columns import Columns  # few ask about many addresses

        return Columns(self.images, list(addresses))
