"""From pictures on disk to batches of latents: scan, place in buckets, encode, sample."""
