"""One Momento cache as a process uses it: bytes in, bytes out, with retry, breaker and token.

It knows the service's API and the failure policy. It knows nothing of what the bytes mean, nor of
Django or sockets.
"""
