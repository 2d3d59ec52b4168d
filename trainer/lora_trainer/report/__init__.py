"""One HTML file that shows a run, or several side by side. Used by `evaluate`, `lora report` and `lora compare`."""

from lora_trainer.report.writing import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
