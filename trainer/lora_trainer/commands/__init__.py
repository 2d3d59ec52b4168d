"""The sub-commands of `lora`, one module each; `__main__` registers them."""
