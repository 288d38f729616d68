"""Django's cache framework, stored in Momento, over plain HTTP.

Set ``django_momento_http.cache.MomentoCache`` as a ``BACKEND`` in ``CACHES``; see the README.
"""

__version__ = "0.1.0"
