"""Looking after a dataset before it is trained on: what is wrong with it, edits of its captions, crops of its
pictures. Used by `lora captions` and `lora dataset`; no run needs it."""
