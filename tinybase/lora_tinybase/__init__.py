"""A tiny but real Stable-Diffusion-1.x-shaped base model: its drawings, its training and its score."""
