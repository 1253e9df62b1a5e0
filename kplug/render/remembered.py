"""How many layers a renderer keeps laid out."""

from __future__ import annotations

# Layers of images are few and come again; those of special values are made for each address.
MAX_REMEMBERED = 200_000
