"""I/O leaves, each around one third-party library and strangers to each other."""
