"""What the architecture of a CPU defines: registers and their bits, call instructions, page tables."""
