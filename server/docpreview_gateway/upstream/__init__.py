"""The cloud's job API behind the port `PreviewUpstream`: one attempt, and decorators of the same port, one a file."""
