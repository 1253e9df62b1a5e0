"""The architectures: one declaration each, a file or a folder here that is named as the architecture is.

`registry` finds them, `types` is what they are made of. What stands outside asks the registry, and compares with no
name. The names are the kernel's own (`uname -m`), for ppc64 and aarch64 whatever the byte order is.
"""
