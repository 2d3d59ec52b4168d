"""lora_api.redaction"""

import pytest

from lora_api.redaction import redact

HUB_TOKEN = "hf_" + "aBcD1234" * 4
KEY_ID = "AKIA" + "IOSFODNN7EXAMPLE"
SECRETS = {
    "presigned": ("GET https://s3/b/k?X-Amz-Date=1&X-Amz-Signature=5ec0de&x-id=Get", "5ec0de"),
    "session": ("?X-Amz-Security-Token=FwoGZXIvYXdz%2F&a=1", "FwoGZXIvYXdz"),
    "token": ("https://hub/model?download=1&token=5ec0de", "5ec0de"),
    "old signature": ("?AWSAccessKeyId=5ec0de&Expires=1", "5ec0de"),
    "variable": ("AWS_SECRET_ACCESS_KEY=5ec0de/abc rest", "5ec0de"),
    "password": ("password=5ec0de", "5ec0de"),
    "json": ('{"access_token": "5ec0de"}', "5ec0de"),
    "userinfo": ("https://user:5ec0de@minio:9000/b", "5ec0de"),
    "header": ("Authorization: AWS4-HMAC-SHA256 Credential=a/b, Signature=5ec0de", "5ec0de"),
    "bearer": ("sent Bearer 5ec0de.abc-def", "5ec0de"),
    "hub": (f"401 for {HUB_TOKEN}", HUB_TOKEN),
    "presigned by Google": ("https://g/b?X-Goog-Credential=a%2Fb&X-Goog-Signature=5ec0de&x=1", "5ec0de"),
    "variable of the hub": ("HUGGING_FACE_HUB_TOKEN=5ec0de", "5ec0de"),
    "settings": ("password: 5ec0de5ec0de", "5ec0de5ec0de"),
    "environment as YAML": ("DB_PASSWORD: 5ec0de5ec0de", "5ec0de5ec0de"),
    "credentials file": ("aws_secret_access_key = 5ec0de/5ec0de", "5ec0de/5ec0de"),
    "header of a session": ("x-amz-security-token: 5ec0de5ec0de", "5ec0de5ec0de"),
    "web identity": ("got eyJhbGciOiJ.eyJzdWIiOiIx.5ec0de", "5ec0de"),
    "private key": ("-----BEGIN RSA PRIVATE KEY-----\n5ec0de\n-----END RSA PRIVATE KEY-----", "5ec0de"),
    "private key cut off": ("-----BEGIN PRIVATE KEY-----\n5ec0de", "5ec0de"),
    "key id": (f"the key {KEY_ID} is unknown", KEY_ID),
}
HARMLESS = [
    "spec.baseModel.tokenSecretRef: Secret hf has no key token; add it",
    "captions.keepTokens=3, maxTokens: 150, max_token_length=225",
    "s3://lora/TrainData/50_hina/a.png does not decode",
    "hf://stable-diffusion-v1-5/stable-diffusion-v1-5 with hf_transfer",
    "token: 12 of 75; password: none; the cache key: abcdefgh",
    "set HF_TOKEN or spec.baseModel.tokenSecretRef",
    "step 310 of 1000: loss=0.09",
    "mail admin@example.com",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS)
def test_a_secret_is_not_shown(text: str, secret: str) -> None:
    found = redact(text)

    assert secret not in found
    assert "***" in found


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", [text for text, _ in SECRETS.values()], ids=SECRETS)
def test_twice_is_the_same_as_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_what_stands_around_a_secret_stays() -> None:
    assert redact("GET https://s3/b/k?X-Amz-Signature=5ec0de&x-id=Get: 403") == (
        "GET https://s3/b/k?X-Amz-Signature=***&x-id=Get: 403"
    )


def test_known_secrets_are_found_wherever_they_stand() -> None:
    assert redact("cannot sign with topsecret1, topsecret12", ["topsecret1", "topsecret12"]) == (
        "cannot sign with ***, ***"
    )


def test_known_values_too_short_to_be_secret_stay() -> None:
    assert redact("step 12 of 100", ["12"]) == "step 12 of 100"
