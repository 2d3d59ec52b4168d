"""The trainer: a folder of captioned pictures in, one LoRA adapter per epoch out.

Shape letters used throughout: B batch, C latent channels, H W pixels, h w latent size, L tokens, D width, r rank.
A step is one update of the weights; a batch is one forward pass; epochs count from 1.
"""
