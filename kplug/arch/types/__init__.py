"""The building blocks of the architectures' declarations."""
