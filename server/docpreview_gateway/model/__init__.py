"""Domain values and rules that all parts share. No I/O, no framework."""
