"""PyPI Authlib, over requests and over httpx: metadata, token, use, introspection, revocation;
Basic and form."""

from support import BASE, ID, RESOURCE, SCOPE, SECRET, done, metadata, verify

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from joserfc import jwt
from joserfc.jwk import KeySet


def check_metadata():
    assert get_well_known_url(BASE, external=True) == f"{BASE}/.well-known/oauth-authorization-server"
    told = AuthorizationServerMetadata(metadata())
    # Authlib takes an empty response_types_supported for a missing one; a server without an
    # authorization endpoint has no other (RFC 8414 §2 requires the member, not that it holds one).
    assert told["response_types_supported"] == []
    told.validate_grant_types_supported()
    told.validate_token_endpoint_auth_methods_supported()
    told.validate_revocation_endpoint_auth_methods_supported()
    told.validate_introspection_endpoint_auth_methods_supported()
    told.validate_scopes_supported()
    return told


def check(session_class, method, server):
    with session_class(ID, SECRET, token_endpoint_auth_method=method, scope=SCOPE) as session:
        token = session.fetch_token(server["token_endpoint"], grant_type="client_credentials")
        assert token["scope"] == SCOPE and token["expires_in"] == 3600
        access_token = token["access_token"]
        verify(access_token)
        keys = KeySet.import_key_set(requests.get(server["jwks_uri"], timeout=10).json())
        assert jwt.decode(access_token, keys, algorithms=["ES256"]).header["typ"] == "at+jwt"
        assert session.get(RESOURCE).status_code == 200

        def introspect():
            answer = session.introspect_token(server["introspection_endpoint"], token=access_token)
            return answer.json()

        assert introspect()["client_id"] == ID
        revoked = session.revoke_token(server["revocation_endpoint"], token=access_token)
        assert revoked.status_code == 200
        assert introspect() == {"active": False}
        assert session.get(RESOURCE).status_code == 401
        try:
            session.fetch_token(server["token_endpoint"], grant_type="client_credentials", scope="no:such")
        except OAuthError as error:
            assert error.error == "invalid_scope"
        else:
            raise AssertionError("a scope that does not exist was granted")
    done(f"Authlib {session_class.__name__}", method)


server = check_metadata()
for session_class in (OAuth2Session, OAuth2Client):
    for method in ("client_secret_basic", "client_secret_post"):
        check(session_class, method, server)
