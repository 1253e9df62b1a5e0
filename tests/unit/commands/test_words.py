"""A line at a prompt: its words, what is one expression of many words, and where its output goes.

What an expression is: the head of kplug/expressions.py.
"""

from __future__ import annotations

import pytest

from kplug.commands import COMMANDS
from kplug.commands.words import expressions, long_options, split, split_for, whole_expression, with_expressions
from kplug.errors import ExpressionError, UsageError


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  schedule   -b ", ["schedule", "-b"]),
        ("'*_fops' \"a b\"", ["*_fops", "a b"]),
        ("'inode.c'::init_once", ["inode.c::init_once"]),
        ('prog["init_task"].comm[0]', ['prog["init_task"].comm[0]']),
        ("f(1, 'x | y')", ["f(1, 'x | y')"]),
        ("[<ffffffff81a114f4>] <ffffffff81a114f4>", ["[<ffffffff81a114f4>]", "<ffffffff81a114f4>"]),
        ("task->stack", ["task->stack"]),
        ("a\\ b", ["a b"]),
        ("f(", ["f("]),
        ("x)) y", ["x))", "y"]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    found = split(line)
    assert found.words == words
    assert found.text == line.strip()
    assert (found.pipeline, found.file) == (None, None)


@pytest.mark.parametrize(
    ("line", "words", "pipeline", "file", "append"),
    [
        ("schedule | grep x | wc -l", ["schedule"], "grep x | wc -l", None, False),
        ("schedule|less", ["schedule"], "less", None, False),
        ("schedule > 'a b'", ["schedule"], None, "a b", False),
        ("schedule >>out", ["schedule"], None, "out", True),
        ("f(a | b) > out", ["f(a | b)"], None, "out", False),
        ("> out", [], None, "out", False),
    ],
)
def test_where_output_goes(line: str, words: list[str], pipeline: str | None, file: str | None, append: bool) -> None:
    found = split(line)
    assert (found.words, found.pipeline, found.file, found.append) == (words, pipeline, file, append)


@pytest.mark.parametrize("line", ["'open", '"open', "x |", "x | ", "x >", "x >>", "x > a b"])
def test_a_line_that_is_wrong(line: str) -> None:
    with pytest.raises(UsageError):
        split(line)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("a b", ["a", "b"]),
        ("-b a b", ["a", "b"]),
        ("-bl a + 4", ["a + 4"]),
        ("a + 4 -l --br", ["a + 4"]),
        ("a + 4", ["a + 4"]),
        ("(long) a", ["(long) a"]),
        ("? a", ["? a"]),
        ("a nothing", ["a", "nothing"]),
        ("", []),
    ],
)
def test_what_is_one_expression(line: str, asked: list[str]) -> None:
    def means_something(text: str) -> None:
        if text not in ("a", "b", "(long) a"):
            raise ExpressionError(text)

    parser = COMMANDS["where"].parser("kwhere")
    words = parser.parse_args(split(line).words).expressions
    assert expressions(words, whole_expression(line, parser), means_something) == asked


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("[   12.3] ? a+0x1/0x2 [m]", ["[   12.3] ? a+0x1/0x2 [m]"]),
        ("-bl > RIP: 0010:a+0x1/0x2", ["> RIP: 0010:a+0x1/0x2"]),
        ("-b => a+0x1", ["=> a+0x1"]),
        ('#1  a (s="it\'s") at b.c:1', ['#1  a (s="it\'s") at b.c:1']),
        ("<4>-(0)[1:x] a+0x1/0x2 -b", ["<4>-(0)[1:x] a+0x1/0x2 -b"]),
        ("a+0x1/0x2 -b b+0x1/0x2", ["a+0x1/0x2", "b+0x1/0x2"]),
        ("a+0x1/0x2 as struct m", ["a+0x1/0x2 as struct m"]),
    ],
)
def test_a_line_of_a_log_is_taken_as_it_is(line: str, asked: list[str]) -> None:
    command = COMMANDS["where"]
    parser = command.parser("kwhere")
    arguments = parser.parse_args(split_for(command, parser, line).words)
    assert with_expressions(arguments, line, parser, lambda text: None).expressions == asked


def test_a_pipe_after_one_is_a_pipe() -> None:
    command = COMMANDS["where"]
    line = split_for(command, command.parser("kwhere"), "a+0x1/0x2 | less")
    assert (line.words, line.pipeline) == (["a+0x1/0x2"], "less")


def test_long_options() -> None:
    assert "--brief" in long_options(COMMANDS["where"])
    assert all(option.startswith("--") for command in COMMANDS.values() for option in long_options(command))


def test_each_command_is_found_by_its_name() -> None:
    assert [command.name for command in COMMANDS.values()] == list(COMMANDS)
