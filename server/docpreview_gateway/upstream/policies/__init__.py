"""Rules of the middleware, without I/O: time and randomness are arguments."""
