"""The mathematics of diffusion: noise, loss, sampling. Pure; knows no model."""
