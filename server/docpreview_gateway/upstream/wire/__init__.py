"""The cloud's wire format: signatures, XML, requests, responses. No I/O."""
