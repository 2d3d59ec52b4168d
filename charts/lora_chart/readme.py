"""Tables between marks in the chart's README. Used by `__main__`."""


def with_table(text: str, name: str, table: str) -> str:
    """The text with the table of this name replaced. Raises ValueError when its marks are missing."""
    begin, end = f"<!-- {name}: made by `python -m lora_chart` -->\n", f"<!-- end of {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"README.md lacks the marks {begin.strip()} and {end}; put them where the table belongs")
    before, rest = text.split(begin, 1)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end, 1)[1]}"
