"""PyPI httpx, without an OAuth library: Basic, form and JSON at every endpoint."""

from support import ID, RESOURCE, SCOPE, SECRET, done, metadata, verify

import httpx

server = metadata()
pair = {"client_id": ID, "client_secret": SECRET}
ways = {
    "Basic": lambda url, values: httpx.post(url, data=values, auth=(ID, SECRET)),
    "form": lambda url, values: httpx.post(url, data=values | pair),
    "JSON": lambda url, values: httpx.post(url, json=values | pair),
}
for method, post in ways.items():
    answer = post(server["token_endpoint"], {"grant_type": "client_credentials", "scope": SCOPE})
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    token = answer.json()["access_token"]
    verify(token)
    bearer = {"Authorization": f"Bearer {token}"}
    assert httpx.get(RESOURCE, headers=bearer).status_code == 200
    asked = {"token": token}
    assert post(server["introspection_endpoint"], asked).json()["active"] is True
    assert post(server["revocation_endpoint"], asked).status_code == 200
    assert post(server["introspection_endpoint"], asked).json() == {"active": False}
    assert httpx.get(RESOURCE, headers=bearer).status_code == 401
    done("httpx", method)
