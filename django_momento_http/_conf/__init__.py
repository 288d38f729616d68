"""What may be set in CACHES, read once into frozen objects, and errors that say what is wrong.

It knows options, endpoints, credentials and signing keys, and shows no secret. It knows nothing of
what is done with them.
"""
