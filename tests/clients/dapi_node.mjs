// Dapi's SDK for Node against a sandbox, or against Strongroom that stands before one:
//
//     node dapi_node.mjs http://127.0.0.1:PORT
//     node dapi_node.mjs http://127.0.0.1:PORT http://127.0.0.1:STRONGROOM/dapi CLIENT_ID.CLIENT_SECRET
//
// Exchange, identity, accounts, a transfer with its one-time password, delink; first over /v2, then
// over the pass-through that SDKs inside apps use. Any deviation ends it with an exception.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { default: DapiApp } = require("@dapi-co/dapi-node");
const { DAPI_URL } = require("@dapi-co/dapi-node/lib/constants/url");

const [sandbox, strongroom, clientSecret] = process.argv.slice(2);
assert.ok(sandbox, "the sandbox's address is missing");
const base = strongroom ?? sandbox;
// The SDK has no option for its base URL, but reads it anew for every call.
DAPI_URL.BASE_URL = `${base}/v2`;
DAPI_URL.DEPLOY_WITH_DAPI_URL = base;

const appSecret = strongroom ? clientSecret : "sandbox-app-secret";
const dapi = new DapiApp({ appSecret });
const otp = [{ id: "otp", index: 0, answer: "123456" }];

async function connect() {
  const response = await fetch(`${sandbox}/sandbox/connect`, { method: "POST" });
  return response.json();
}

function done(answer) {
  assert.equal(answer.success, true, JSON.stringify(answer));
  assert.equal(answer.status, "done", JSON.stringify(answer));
  return answer;
}

function refused(answer, type) {
  assert.equal(answer.success, false, JSON.stringify(answer));
  assert.equal(answer.status, "failed", JSON.stringify(answer));
  assert.equal(answer.type, type, JSON.stringify(answer));
}

// A way to call Dapi: what differs between /v2 and the pass-through is in here.
function overV2(linked) {
  const { userSecret } = linked;
  return {
    exchange: () => dapi.auth.exchangeToken(linked.accessCode, linked.connectionID),
    identity: (token) => dapi.data.getIdentity(token, userSecret),
    accounts: (token) => dapi.data.getAccounts(token, userSecret),
    transfer: (token, transfer, id, inputs) =>
      dapi.payment.createTransfer(transfer, token, userSecret, id, inputs),
    // The SDK's own delinkUser sends nothing at all, so the call has to be made by hand.
    delink: async (token) => {
      const response = await fetch(`${base}/v2/users/DelinkUser`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
        body: JSON.stringify({ appSecret, userSecret }),
      });
      return response.json();
    },
  };
}

function overPassThrough(linked) {
  const { userSecret, accessCode, connectionID } = linked;
  const call = (action, token, body = {}) => {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    return dapi.handleSDKDapiRequests({ action, ...body }, headers);
  };
  return {
    exchange: () => call("auth/ExchangeToken", null, { accessCode, connectionID }),
    identity: (token) => call("data/identity/get", token, { userSecret }),
    accounts: (token) => call("data/accounts/get", token, { userSecret }),
    transfer: (token, transfer, operationID, userInputs) =>
      call("payment/transfer/create", token, { userSecret, ...transfer, operationID, userInputs }),
    delink: (token) => call("users/DelinkUser", token, { userSecret }),
  };
}

async function run(name, way) {
  const linked = await connect();
  const client = way(linked);

  const exchanged = done(await client.exchange());
  assert.equal(exchanged.tokenID, linked.tokenID);
  assert.equal(exchanged.userID, linked.userID);
  const token = exchanged.accessToken;
  if (strongroom) {
    assert.ok(token.startsWith("strongroom_"), "it is a stand-in");
    assert.equal(done(await client.exchange()).accessToken, token, "a repeat gives the same");
  } else {
    refused(await client.exchange(), "ACCESS_CODE_USED");
  }

  const { identity } = done(await client.identity(token));
  assert.ok(identity.name);
  const { accounts } = done(await client.accounts(token));
  assert.ok(accounts.length > 0);

  const transfer = {
    senderID: accounts[0].id,
    amount: 12.5,
    name: "Somebody",
    accountNumber: "12345678",
  };
  const asked = await client.transfer(token, transfer);
  assert.equal(asked.status, "user_input_required", JSON.stringify(asked));
  assert.equal(asked.userInputs[0].id, "otp");
  const paid = done(await client.transfer(token, transfer, asked.operationID, otp));
  assert.equal(paid.operationID, asked.operationID);
  assert.ok(paid.reference);

  // It reports no failure either: whoever trusts it leaves every token alive.
  assert.equal(await dapi.auth.delinkUser(linked.userSecret, appSecret), undefined);
  done(await client.identity(token));
  done(await client.delink(token));
  refused(await client.identity(token), "USER_DELINKED");
  refused(await client.delink(token), "USER_DELINKED");
  console.log(`ok: dapi-node over ${name}${strongroom ? ", through Strongroom" : ""}`);
}

await run("/v2", overV2);
await run("the pass-through", overPassThrough);
