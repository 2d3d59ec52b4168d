"""Settings of Kohya_ss and sd-scripts, in each form they come in, turned into a LoraTraining."""
