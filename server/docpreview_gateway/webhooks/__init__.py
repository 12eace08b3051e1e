"""Outgoing webhooks: the queue of events that targets of the policy are to get, and what sends them."""
