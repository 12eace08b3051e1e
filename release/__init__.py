"""What a release is made of: the version of every package, and a rehearsal that does everything but the upload."""
