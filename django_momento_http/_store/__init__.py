"""What each cache method does with get, set and delete, and what stored values look like.

It knows the stored format, generations, owed writes and what ON_ERROR asks for. It knows nothing of
Django's contract above it (versions, defaults), nor of HTTP below it.
"""
