"""Takes secrets out of text before it is shown or stored; pure. Used by the operator for status and events, and by
the trainer for its log."""

import re
from collections.abc import Iterable

MASK = "***"
_SHORTEST_SECRET = 6
"""Shorter values that are known to be secret would be found in ordinary words."""
_NAMES = (
    "token|access_token|auth_token|id_token|session_token|api[_-]?key|secret|client_secret|password|passwd|signature|sig|"
    "credential|awsaccesskeyid|(?:aws_)?(?:access_key_id|secret_access_key|session_token)|x-(?:amz|goog)-[a-z-]+"
)
_CLEAR_NAMES = (
    "access_token|auth_token|session_token|api[_-]?key|client_secret|password|passwd|(?:aws_)?secret_access_key|"
    "(?:aws_)?access_key_id|x-(?:amz|goog)-[a-z-]+"
)
"""Those that mean a secret also before a colon, in prose and in files of settings."""
_VARIABLES = "[A-Z][A-Z0-9_]*_(?:TOKEN|SECRET|PASSWORD|PASSWD|KEY|CREDENTIALS)"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # https://user:password@host
    (re.compile(r"(://)[^/\s@'\"]+@"), rf"\1{MASK}@"),
    # Authorization: Bearer …, up to the end of the line: signatures have several parts.
    (re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*)[^\n]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{MASK}"),
    # ?X-Amz-Signature=…&token=…, AWS_SECRET_ACCESS_KEY=…
    (re.compile(rf"(?i)(?<![\w-])((?:{_NAMES})=)[^\s&'\",;)]+"), rf"\1{MASK}"),
    # password: …, aws_secret_access_key = …, HF_TOKEN=…, DB_PASSWORD: …
    (re.compile(rf"((?<![\w-])(?:(?i:{_CLEAR_NAMES})|{_VARIABLES})\s*[=:]\s*)[^\s&'\",;)]{{6,}}"), rf"\1{MASK}"),
    # "token": "…"
    (re.compile(rf"(?i)(['\"](?:{_NAMES})['\"]\s*:\s*['\"])[^'\"]+"), rf"\1{MASK}"),
    # Keys that tell themselves by their form: the hub's tokens, key ids of AWS and Google, JSON Web Tokens, PEM.
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), MASK),
    (re.compile(r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|GOOG[A-Z0-9]{20,})\b"), MASK),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"), MASK),
    (re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"), MASK),
)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """The text with `***` in place of signatures, tokens, passwords and keys.

    `known`: further secrets, masked wherever they stand if they have 6 or more characters. Doing it twice changes
    nothing more.
    """
    # The longest first: one secret may be the beginning of another.
    for secret in sorted({one for one in known if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text
