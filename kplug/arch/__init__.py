"""The architectures: one declaration each, in a file or folder named after the architecture.

`registry` finds them, `types` has their building blocks. Code elsewhere asks the registry and compares no names. The
names are the kernel's own (`uname -m`); ppc64 and aarch64 stand for both byte orders.
"""
