"""PyPI requests-oauthlib: token, use, revocation; Basic and form. It knows neither metadata nor
introspection, which are asked with requests."""

from support import ID, RESOURCE, SCOPE, SECRET, done, metadata, verify

import requests
from oauthlib.oauth2 import BackendApplicationClient, InvalidScopeError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

server = metadata()
for method in ("client_secret_basic", "client_secret_post"):
    basic = method == "client_secret_basic"
    how = {"auth": HTTPBasicAuth(ID, SECRET)} if basic else {"client_secret": SECRET, "include_client_id": True}
    client = BackendApplicationClient(client_id=ID, scope=SCOPE)
    session = OAuth2Session(client=client)
    token = session.fetch_token(server["token_endpoint"], **how)["access_token"]
    verify(token)
    assert session.get(RESOURCE).status_code == 200

    def introspect():
        asked = {"token": token}
        return requests.post(server["introspection_endpoint"], asked, auth=(ID, SECRET), timeout=10).json()

    assert introspect()["active"] is True
    given = {} if basic else {"client_id": ID, "client_secret": SECRET}
    url, headers, body = client.prepare_token_revocation_request(server["revocation_endpoint"], token, **given)
    credentials = (ID, SECRET) if basic else None
    assert requests.post(url, body, headers=headers, auth=credentials, timeout=10).status_code == 200
    assert introspect() == {"active": False}
    assert requests.get(RESOURCE, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code == 401
    try:
        OAuth2Session(client=BackendApplicationClient(client_id=ID, scope="no:such")).fetch_token(
            server["token_endpoint"], **how
        )
    except InvalidScopeError:
        pass
    else:
        raise AssertionError("a scope that does not exist was granted")
    done("requests-oauthlib", method)
