"""HTTP/1.1 over sockets of our own: one request at a time, or many under way at once.

It knows connections, deadlines and what `requests` needs. It knows nothing of caches, breakers or
what a status means.
"""
