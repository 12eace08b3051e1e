"""Version 1 of the docpreview contract (proto package `docpreview.v1`)."""
