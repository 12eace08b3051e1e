"""Functions of the type `Upstream` around another, one a file."""
