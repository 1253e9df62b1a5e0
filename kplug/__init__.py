"""kplug answers one question about a Linux kernel: what is this address?

The core knows kernels and no debugger: `kplug.resolver.Resolver` puts together the layers that the artefacts on disk
(`kplug.image`), the linker script (`kplug.linker`), the address space (`kplug.space`) and a running target know of an
address, from the widest to the narrowest. Front ends (`kplug.shell.cli`, `gdb/`) only ask and show.
"""

__version__ = "0.1.0"
