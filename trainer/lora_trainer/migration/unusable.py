"""The error of the whole import."""

from lora_trainer.errors import InvalidConfiguration


class UnusableSettings(InvalidConfiguration):
    """The settings cannot be brought over; the message names what is wrong with them."""

    def __init__(self, message: str, *, hint: str = "Change the settings and import them again.") -> None:
        super().__init__(message, hint=hint)
