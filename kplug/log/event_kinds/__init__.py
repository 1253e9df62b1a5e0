"""The kinds of events, one file for each family: `KINDS` is its rows (`kplug.log.kinds.EventKind`)."""
