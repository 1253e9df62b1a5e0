"""What drgn can tell. The only part of the core that imports it."""
