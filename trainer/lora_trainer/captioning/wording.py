"""How a caption is made of a model's description: trigger words, text before it and after it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """What stands around a description."""

    trigger: str = ""
    """Words that call the adapter up; they and a comma come first, unless the description holds them."""
    prefix: str = ""
    """Text before it all, with a space between."""
    suffix: str = ""
    """Text after it all, with a space between."""

    def caption(self, description: str) -> str:
        """One line with single spaces; empty if there is nothing to say."""
        trigger = " ".join(self.trigger.split())
        text = " ".join(description.split())
        if trigger and not _holds(text, trigger):
            text = f"{trigger}, {text}" if text else trigger
        return " ".join(" ".join((self.prefix, text, self.suffix)).split())


def _holds(text: str, words: str) -> bool:
    """Whether `words` stand in `text` one after the other; upper and lower case are alike."""
    return f" {_plain(words)} " in f" {_plain(text)} "


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())
