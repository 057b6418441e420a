"""Passwords in addresses."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import InputError
from foundation.secrets import masked

CHARACTERS = string.ascii_letters + string.digits + ":@%!$*+~-_.,"
SECRET = st.text(CHARACTERS, min_size=1, max_size=30).map("Xq7".__add__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://admin:Hunter2@cam:554/s does not open", "rtsp://admin:***@cam:554/s does not open"),
        ("rtsp://a:p@ss/w:x@cam/s", "rtsp://a:***@cam/s"),
        ("http://s3cret@cam/x", "http://***@cam/x"),
        ("http://cam/x?user=a&pwd=b&n=1", "http://cam/x?user=a&pwd=***&n=1"),
        ("http://cam/x?access_token=abc#f", "http://cam/x?access_token=***#f"),
        ("http://cam/cgi?loginuse=a&loginpas=b", "http://cam/cgi?loginuse=a&loginpas=***"),
        ("rtsp://cam/user=admin_password=tlJ_channel=1", "rtsp://cam/user=admin_password=***"),
        ("simulated://?seed=1&trouble=black@6", "simulated://?seed=1&trouble=black@6"),
        ("http://cam:8080/mjpeg", "http://cam:8080/mjpeg"),
        ("/data/password=1.mp4: no such file", "/data/password=1.mp4: no such file"),
    ],
)
def test_only_secrets_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@given(SECRET)
def test_no_password_is_left_and_masking_again_changes_nothing(secret: str) -> None:
    for address in (f"rtsp://admin:{secret}@camera/stream", f"http://camera/x?token={secret}&n=1"):
        text = masked(f"top: {address} does not open")
        assert secret not in text
        assert masked(text) == text
        assert secret not in str(InputError(f"cameras.top.source: found {address}"))
