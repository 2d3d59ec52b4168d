"""Captions by a model that looks at pictures: its files, its words, and what becomes of them. Used by
`generated_captions` (in a run) and `caption_files` (`lora caption`); knows neither datasets nor stores."""
