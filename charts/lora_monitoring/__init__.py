"""Grafana dashboards and Prometheus alerts of the chart, made from typed code. Run as `python -m lora_monitoring`."""
