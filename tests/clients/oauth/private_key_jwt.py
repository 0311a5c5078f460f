"""PyPI Authlib with private_key_jwt, over requests and over httpx: token, use, introspection, revocation. Its third
argument is a folder."""

import json
import time

from support import BASE, ID, RESOURCE, SCOPE, SECRET as FOLDER, done, metadata

from authlib.integrations.httpx_client import OAuth2Client
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign
from joserfc.jwk import ECKey


class KeyAuth(PrivateKeyJWT):
    """Authlib's assertion lives for an hour, and Strongroom takes five minutes at most. The claims are new for each: Authlib
    keeps the `jti` in those that it is given."""

    def sign(self, auth, token_endpoint):
        claims = {"exp": int(time.time()) + 60}
        return private_key_jwt_sign(
            auth.client_secret, client_id=auth.client_id, token_endpoint=token_endpoint, claims=claims, alg="ES256"
        )


with open(f"{FOLDER}/private.json", encoding="utf-8") as file:
    key = ECKey.import_key(json.load(file))
server = metadata()
for session_class in (OAuth2Session, OAuth2Client):
    methods = {f"{endpoint}_endpoint_auth_method": "private_key_jwt" for endpoint in ("token", "revocation")}
    with session_class(ID, key, scope=SCOPE, **methods) as session:
        session.register_client_auth_method(KeyAuth(server["token_endpoint"]))
        token = session.fetch_token(server["token_endpoint"], grant_type="client_credentials")
        assert token["scope"] == SCOPE and token["token_type"] == "Bearer"
        assert session.get(RESOURCE).status_code == 200

        def introspect():
            answer = session.introspect_token(server["introspection_endpoint"], token=token["access_token"])
            return answer.json()

        assert introspect()["client_id"] == ID
        revoked = session.revoke_token(server["revocation_endpoint"], token=token["access_token"])
        assert revoked.status_code == 200
        assert introspect() == {"active": False}
    done(f"Authlib {session_class.__name__}", "private_key_jwt")
