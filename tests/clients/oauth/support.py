"""What the clients for Python have in common."""

import os
import sys

# The service runs on loopback without TLS here.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

import jwt
import requests

BASE, ID, SECRET = sys.argv[1:4]
RESOURCE = f"{BASE}/v1/connections"
SCOPE = "connections:read"


def metadata():
    """What the server says of itself (RFC 8414), at the place where the RFC has it."""
    told = requests.get(f"{BASE}/.well-known/oauth-authorization-server", timeout=10).json()
    assert told["issuer"] == BASE
    return told


def verify(token):
    """Verifies a token with PyJWT, by the key set that the server publishes."""
    key = jwt.PyJWKClient(metadata()["jwks_uri"]).get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, algorithms=["ES256", "RS256", "EdDSA"], issuer=BASE, audience=BASE)
    assert claims["client_id"] == ID
    return claims


def done(library, method):
    print(f"ok  {library}  {method}")
