"""Fakes of the gateway's ports, one a file. They are given through constructors; nothing is patched."""
