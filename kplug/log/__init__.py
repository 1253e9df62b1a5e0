"""The kernel's log as text: what its lines have before, around and after an address or a symbol. No I/O.

`forms` declares the forms, a row each; `lines` reads a line with them.
"""
