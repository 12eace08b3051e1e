"""Rate and concurrency limits of callers."""
