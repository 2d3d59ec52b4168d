"""Base-model families: one module each, behind the one interface of `base`."""
