"""Dapi's SDK for Python against a sandbox, or against Strongroom that stands before one:

    python dapi_python.py http://127.0.0.1:PORT
    python dapi_python.py http://127.0.0.1:PORT http://127.0.0.1:STRONGROOM/dapi CLIENT_ID.CLIENT_SECRET

Exchange, identity, accounts, a transfer with its one-time password, delink; first over /v2, then
over the pass-through that SDKs inside apps use. Any deviation ends it with an exception.
"""

import sys

import dapi.dapi_request
import requests
from dapi import DapiClient

APP_KEY = "sandbox-app-key"
APP_SECRET = "sandbox-app-secret"
OTP = [{"id": "otp", "index": 0, "answer": "123456"}]


class OverV2:
    """The SDK's own methods."""

    def __init__(self, client, linked):
        self.client = client
        self.linked = linked
        self.secret = linked["userSecret"]

    def exchange(self):
        linked = self.linked
        return self.client.auth.exchangeToken(linked["accessCode"], linked["connectionID"])

    def identity(self, token):
        return self.client.data.getIdentity(token, self.secret)

    def accounts(self, token):
        return self.client.data.getAccounts(token, self.secret)

    def transfer(self, token, transfer, inputs=(), operation=""):
        return self.client.payment.createTransfer(
            token, self.secret, transfer, list(inputs), operation
        )

    def operation(self, token, operation):
        return self.client.operation.getOperationStatus(token, self.secret, operation, APP_KEY)

    def delink(self, token):
        return self.client.auth.delinkUser(token, self.secret)


class OverPassThrough(OverV2):
    """What an app's backend does with the requests of the SDK inside the app."""

    def call(self, action, token=None, **body):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.handleSDKDapiRequests({"action": action, **body}, headers)

    def exchange(self):
        linked = self.linked
        return self.call(
            "auth/ExchangeToken",
            accessCode=linked["accessCode"],
            connectionID=linked["connectionID"],
        )

    def identity(self, token):
        return self.call("data/identity/get", token, userSecret=self.secret)

    def accounts(self, token):
        return self.call("data/accounts/get", token, userSecret=self.secret)

    def transfer(self, token, transfer, inputs=(), operation=""):
        return self.call(
            "payment/transfer/create",
            token,
            userSecret=self.secret,
            userInputs=list(inputs),
            operationID=operation,
            **transfer,
        )

    def operation(self, token, operation):
        return self.call(
            "operation/get",
            token,
            userSecret=self.secret,
            operationID=operation,
            appKey=APP_KEY,
        )

    def delink(self, token):
        return self.call("users/DelinkUser", token, userSecret=self.secret)


def done(answer):
    assert answer["success"] is True and answer["status"] == "done", answer
    return answer


def refused(answer, kind):
    assert answer["success"] is False and answer["status"] == "failed", answer
    assert answer["type"] == kind, answer


def run(name, way, sandbox, app_secret):
    through = app_secret != APP_SECRET
    linked = requests.post(f"{sandbox}/sandbox/connect", timeout=10).json()
    client = way(DapiClient(app_secret=app_secret, timeout=10), linked)

    exchanged = done(client.exchange())
    assert exchanged["tokenID"] == linked["tokenID"], exchanged
    assert exchanged["userID"] == linked["userID"], exchanged
    token = exchanged["accessToken"]
    if through:
        assert token.startswith("strongroom_"), "it is a stand-in"
        assert done(client.exchange())["accessToken"] == token, "a repeat gives the same"
    else:
        refused(client.exchange(), "ACCESS_CODE_USED")

    assert done(client.identity(token))["identity"]["name"]
    accounts = done(client.accounts(token))["accounts"]

    transfer = {
        "senderID": accounts[0]["id"],
        "amount": 12.5,
        "name": "Somebody",
        "accountNumber": "12345678",
    }
    asked = client.transfer(token, transfer)
    assert asked["status"] == "user_input_required", asked
    assert asked["userInputs"][0]["id"] == "otp", asked
    paid = done(client.transfer(token, transfer, OTP, asked["operationID"]))
    assert paid["operationID"] == asked["operationID"] and paid["reference"], paid
    info = done(client.operation(token, paid["operationID"]))["opInfo"]
    assert info["transferDetails"]["amount"] == 12.5, info

    done(client.delink(token))
    refused(client.identity(token), "USER_DELINKED")
    refused(client.delink(token), "USER_DELINKED")
    print(f"ok: dapi-python over {name}{', through Strongroom' if through else ''}")


def main():
    sandbox = sys.argv[1]
    base, app_secret = sys.argv[2:] or (sandbox, APP_SECRET)
    # The SDK has no option for its base URL, but reads it anew for every call.
    dapi.dapi_request.API_BASE_URL = f"{base}/v2"
    dapi.dapi_request.DD_HOST = f"{base}/"
    run("/v2", OverV2, sandbox, app_secret)
    run("the pass-through", OverPassThrough, sandbox, app_secret)


main()
