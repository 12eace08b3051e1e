"""Authentication and authorization of callers, and visibility of jobs."""
