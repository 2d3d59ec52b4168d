"""What is made from the chart's files: the table of values in its README, golden renderings. `python -m lora_chart`."""
