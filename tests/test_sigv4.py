"""AWS signatures: the published test suite, AWS's own library, and a verifier that follows the documentation."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, urlsplit

import pytest

from newapi_proxy.adapters._sigv4 import Keys, signed

ACCESS = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = 1_440_938_160  # 2015-08-30T12:36:00Z
HOST = "https://example.amazonaws.com"
UNRESERVED = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

# AWS's Signature Version 4 test suite: method, path and query, headers, body, signature.
SUITE = {
    "get-vanilla": ("GET", "/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-utf8": ("GET", "/ሴ", {}, b"", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    "get-unreserved": ("GET", UNRESERVED, {}, b"", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"),
    "get-space": (
        "GET",
        "/example space/",
        {},
        b"",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    "get-vanilla-query-order-key-case": (
        "GET",
        "/?Param2=value2&Param1=value1",
        {},
        b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-vanilla-query-order-encoded": (
        "GET",
        "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        {},
        b"",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    "post-vanilla": ("POST", "/", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "post-x-www-form-urlencoded": (
        "POST",
        "/",
        FORM,
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}

# Signatures that AWS's library for Python makes for service `bedrock`, content type JSON and this body.
BODY = b'{"messages":[]}'
LIBRARY = {
    "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse": (
        "7415b2c1e839b363c983fcf2b2b9777726647dd92df0cc0ce218cffeeb8932c8"
    ),
    "https://bedrock-runtime.us-east-1.amazonaws.com"
    "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123/invoke": (
        "4a1c90703ae9800d65817e2fefd6fae0155c0d6c57d2c4e28bcad5b895848583"
    ),
    "http://127.0.0.1:4050/model/x/converse": "d163c80d44150cd60653641bb7f2113be095fc46c0c008e812c79ef2d8cfd931",
}


def keys(service: str) -> Keys:
    """The suite's credentials."""
    return Keys(access=ACCESS, secret=SECRET, region="us-east-1", service=service)


@pytest.mark.parametrize("name", SUITE)
def test_published_suite(name: str) -> None:
    """The published requests get the published signatures."""
    method, path, headers, body, signature = SUITE[name]
    made = signed(keys("service"), method, HOST + path, headers, body, NOW)
    names = "content-type;host;x-amz-date" if headers else "host;x-amz-date"
    assert made == {
        "x-amz-date": "20150830T123600Z",
        "authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS}/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}",
    }


@pytest.mark.parametrize("url", LIBRARY)
def test_same_as_the_library(url: str) -> None:
    """Encoded model ids are encoded once more in what is signed, and a port belongs to the host."""
    made = signed(keys("bedrock"), "POST", url, {"content-type": "application/json"}, BODY, NOW)
    assert made["authorization"].endswith(LIBRARY[url])
    assert made["authorization"] == verified(url, {"content-type": "application/json"}, BODY)


def verified(url: str, headers: dict[str, str], body: bytes) -> str:
    """The authorization by the steps of AWS's documentation, for a POST without a query."""
    place = urlsplit(url)
    lines = {**headers, "host": place.netloc, "x-amz-date": "20150830T123600Z"}
    names = ";".join(sorted(lines))
    listed = "".join(f"{name}:{lines[name]}\n" for name in sorted(lines))
    path = "/".join(quote(segment, safe="-_.~") for segment in place.path.split("/"))
    request = f"POST\n{path}\n\n{listed}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = "20150830/us-east-1/bedrock/aws4_request"
    text = f"AWS4-HMAC-SHA256\n20150830T123600Z\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = ("AWS4" + SECRET).encode()
    for word in ("20150830", "us-east-1", "bedrock", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={ACCESS}/{scope}, SignedHeaders={names}, Signature={signature}"


def test_what_is_signed() -> None:
    """Host, content type and AWS's own headers: what libraries and proxies touch on the way is left out."""
    url = "https://h.example/model/m/invoke"
    common = {"content-type": "application/json", "X-Amzn-Bedrock-Trace": "x", "x-amz-meta": " a  b "}
    touched = {"connection": "keep-alive", "user-agent": "u", "accept": "*/*", "accept-encoding": "gzip"}
    plain = signed(keys("bedrock"), "POST", url, common, BODY, NOW)
    assert plain == signed(keys("bedrock"), "POST", url, {**common, **touched}, BODY, NOW)
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-meta," in plain["authorization"]
    assert plain != signed(keys("bedrock"), "POST", url, common, BODY + b" ", NOW)


def test_host_as_the_client_sends_it() -> None:
    """A port that the scheme means is left out, an operator's own host wins, an IPv6 address keeps its brackets."""

    def made(url: str, **headers: str) -> str:
        return signed(keys("bedrock"), "POST", url, headers, BODY, NOW)["authorization"]

    assert made("https://h.example:443/x") == made("https://h.example/x")
    assert made("https://h.example:8443/x") == made("https://h.example/x", host="h.example:8443")
    assert made("http://[::1]:80/x") == made("http://[::1]/x") == made("http://h/x", host="[::1]")
