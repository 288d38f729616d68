"""The example's one app: sixty lighthouses and the slow sums about their nights."""
