"""What is remembered, and until when."""

from __future__ import annotations

import pytest

from kplug.lifetimes import FOR_EVER, UNTIL_FILES_CHANGE, UNTIL_RESUMED, Memo, is_remembered, remembered


class Owner:
    def __init__(self) -> None:
        self.memo = Memo()
        self.made: list[object] = []

    @remembered(UNTIL_RESUMED)
    def value(self, key: int) -> list[int]:
        self.made.append(key)
        return [key]

    @property
    @remembered(FOR_EVER)
    def name(self) -> object:
        self.made.append("name")
        return object()

    @remembered(UNTIL_RESUMED)
    def failing(self) -> None:
        self.made.append("failing")
        raise KeyError("nothing there")


@remembered(UNTIL_FILES_CHANGE)
def files_of(owner: Owner) -> object:
    owner.made.append("files")
    return object()


def test_a_value_is_made_once_for_its_arguments() -> None:
    owner = Owner()
    assert owner.value(1) is owner.value(1)
    assert owner.value(2) == [2]
    assert owner.made == [1, 2]


def test_each_owner_has_its_own() -> None:
    assert files_of(Owner()) is not files_of(Owner())


def test_values_go_with_their_lifetime() -> None:
    owner = Owner()
    kept, files, moved = owner.name, files_of(owner), owner.value(1)
    before = owner.memo.generation
    owner.memo.forget(UNTIL_RESUMED)
    assert owner.memo.generation > before
    assert owner.name is kept
    assert files_of(owner) is files
    assert owner.value(1) is not moved
    owner.memo.forget(UNTIL_RESUMED, UNTIL_FILES_CHANGE)
    assert owner.name is kept
    assert files_of(owner) is not files


def test_what_is_raised_is_not_remembered() -> None:
    owner = Owner()
    for _ in range(2):
        with pytest.raises(KeyError, match="nothing there"):
            owner.failing()
    assert owner.made == ["failing"] * 2


def test_nothing_made_is_remembered_too() -> None:
    """None is a value: asked again, it is not sought again."""
    owner, asked = Owner(), []

    @remembered(UNTIL_RESUMED)
    def nothing(owner: Owner) -> None:
        asked.append(owner)

    assert nothing(owner) is None
    assert nothing(owner) is None
    assert len(asked) == 1


def test_what_is_noticed_to_be_another_is_forgotten() -> None:
    owner = Owner()
    assert owner.memo.notice(UNTIL_FILES_CHANGE, ("vmlinux", 1))
    files, kept = files_of(owner), owner.value(1)
    assert not owner.memo.notice(UNTIL_FILES_CHANGE, ("vmlinux", 1))
    assert files_of(owner) is files
    assert owner.memo.notice(UNTIL_FILES_CHANGE, ("vmlinux", 2))
    assert files_of(owner) is not files
    assert owner.value(1) is kept
    assert owner.memo.notice(UNTIL_RESUMED, None)
    assert owner.value(1) is not kept


def test_whether_a_value_is_remembered_is_told_without_making_it() -> None:
    owner = Owner()
    assert not is_remembered(owner.value, owner, 1)
    owner.value(1)
    assert is_remembered(owner.value, owner, 1)
    assert not is_remembered(owner.value, owner, 2)
    assert owner.made == [1]
