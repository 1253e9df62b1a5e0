"""Answers through drgn. The only part of the core that imports it."""
