"""The prompt: k-commands and Python over a kernel's memory, at a terminal, from a script, or by -e.

Only `prompt` and what it alone uses (`lexer`, `history`, `toolbar`) import prompt-toolkit.
"""
