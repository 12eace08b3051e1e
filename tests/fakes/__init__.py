"""Fakes of the gateway's ports, one a file. Tests pass them to constructors and patch nothing."""
