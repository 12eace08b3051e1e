"""Values and rules that all parts speak of. No I/O, no framework."""
