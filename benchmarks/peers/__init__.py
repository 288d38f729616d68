"""The clients that ours is measured against."""
