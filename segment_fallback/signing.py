"""Reads what Django's signing has signed, as Django does, but derives the keys once and not for each reading.

A hit brings two signed values, and to make Django's signer costs more than the signature itself.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import time

from django.core.signing import BadSignature, b62_decode
from django.utils.encoding import force_bytes

Secrets = tuple[str | bytes, ...]
"""SECRET_KEY, then SECRET_KEY_FALLBACKS."""


def unsign(signed: str, salt: str, secrets: Secrets) -> str:
    """What was signed, as ``Signer(salt=salt).unsign`` has it. Raises BadSignature."""
    value, separator, signature = signed.rpartition(":")
    if not separator:
        raise BadSignature('No ":" found in value')
    given, content = signature.encode("utf-8", "replace"), value.encode()
    for key in _keys(salt, secrets):
        digest = base64.urlsafe_b64encode(hmac.digest(key, content, "sha256")).rstrip(b"=")
        if hmac.compare_digest(digest, given):
            return value
    raise BadSignature("Signature does not match")


def unsign_timed(signed: str, salt: str, secrets: Secrets) -> tuple[str, float]:
    """What ``TimestampSigner(salt=salt)`` has signed, and how many seconds ago. Raises BadSignature or ValueError."""
    value, separator, moment = unsign(signed, salt, secrets).rpartition(":")
    if not separator:
        raise BadSignature('No ":" found in value')
    return value, time.time() - b62_decode(moment)


@functools.lru_cache(maxsize=32)
def _keys(salt: str, secrets: Secrets) -> tuple[bytes, ...]:
    """Those of ``django.utils.crypto.salted_hmac``."""
    return tuple(hashlib.sha256(f"{salt}signer".encode() + force_bytes(secret)).digest() for secret in secrets)
