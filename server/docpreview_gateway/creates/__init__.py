"""Creates of jobs: idempotency, deduplication, page budgets, audit."""
