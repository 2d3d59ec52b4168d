"""The operator: watches LoraTraining objects, runs a Job for each, and keeps their status true."""
