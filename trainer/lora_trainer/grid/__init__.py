"""The epoch × weight grid: what is drawn, its pictures, and the sheet of them all."""
