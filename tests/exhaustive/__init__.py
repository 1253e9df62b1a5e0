"""kplug compared with the oracle, address by address (docs/oracle.md)."""
