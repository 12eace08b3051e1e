"""The cloud's job API: operations, a client, and middleware around it."""
