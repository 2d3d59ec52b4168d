"""Low-rank adapters: put into a model, written, read, checked, shown."""
