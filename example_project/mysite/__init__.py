"""The example's site package: settings, addresses, and the local server."""
