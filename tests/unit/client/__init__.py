"""The Python client and its command, against a scripted gateway over real sockets."""
