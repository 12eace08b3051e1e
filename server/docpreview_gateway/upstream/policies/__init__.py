"""Rules that middleware applies. No I/O: time and randomness are arguments."""
