"""What a log names, answered: by the one resolver, many at once. No I/O, and no text."""
