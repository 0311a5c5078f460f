// Plaid's SDK for Node against the sandbox, or against Strongroom that stands before one:
//
//     SANDBOX_URL=http://127.0.0.1:PORT PLAID_BASE_URL=$SANDBOX_URL/plaid \
//       PLAID_CLIENT_ID=… PLAID_SECRET=… node plaid_node.mjs
//
// Link token, exchange, accounts, transactions, remove, and the shape of an error. PLAID_BASE_URL is whom the
// SDK calls; SANDBOX_URL is where Link is. Any deviation ends it with an exception.
import assert from "node:assert/strict";
import { Configuration, CountryCode, PlaidApi, Products } from "plaid";

const { SANDBOX_URL, PLAID_BASE_URL, PLAID_CLIENT_ID, PLAID_SECRET } = process.env;
assert.ok(SANDBOX_URL && PLAID_BASE_URL && PLAID_CLIENT_ID && PLAID_SECRET, "a variable is missing");
const through = !PLAID_BASE_URL.startsWith(SANDBOX_URL);

const headers = { "PLAID-CLIENT-ID": PLAID_CLIENT_ID, "PLAID-SECRET": PLAID_SECRET };
const plaid = new PlaidApi(new Configuration({ basePath: PLAID_BASE_URL, baseOptions: { headers } }));

async function data(call) {
  const { data } = await call;
  assert.ok(data.request_id, JSON.stringify(data));
  return data;
}

// Returns Plaid's error of a call that is refused.
async function refused(call) {
  const error = await call.then(
    ({ data }) => assert.fail(`not refused: ${JSON.stringify(data)}`),
    (error) => error,
  );
  const { status, data } = error.response ?? assert.fail(error);
  assert.equal(status, 400, JSON.stringify(data));
  for (const name of ["error_type", "error_code", "error_message", "request_id"]) {
    assert.equal(typeof data[name], "string", JSON.stringify(data));
  }
  assert.ok("display_message" in data, JSON.stringify(data));
  return data;
}

// What the user does in Link.
async function link(linkToken) {
  const options = { method: "POST", body: JSON.stringify({ linkToken }) };
  const response = await fetch(`${SANDBOX_URL}/sandbox/plaid/link`, options);
  assert.equal(response.status, 200);
  return response.json();
}

const { link_token } = await data(
  plaid.linkTokenCreate({
    user: { client_user_id: "node" },
    client_name: "Clients",
    products: [Products.Transactions],
    country_codes: [CountryCode.Us],
    language: "en",
  }),
);
assert.ok(link_token.startsWith("link-"));
const { public_token, metadata } = await link(link_token);

const exchanged = await data(plaid.itemPublicTokenExchange({ public_token }));
const { access_token, item_id } = exchanged;
assert.ok(access_token && item_id);
if (through) {
  const again = await data(plaid.itemPublicTokenExchange({ public_token }));
  assert.equal(again.access_token, access_token, "a repeat gives the same");
} else {
  const error = await refused(plaid.itemPublicTokenExchange({ public_token }));
  assert.deepEqual([error.error_type, error.error_code], ["INVALID_INPUT", "INVALID_PUBLIC_TOKEN"]);
}

const { accounts, item } = await data(plaid.accountsGet({ access_token }));
assert.equal(item.item_id, item_id);
assert.deepEqual(accounts.map(({ mask }) => mask), metadata.accounts.map(({ mask }) => mask));

let cursor;
let added = 0;
for (let more = true; more; ) {
  const page = await data(plaid.transactionsSync({ access_token, cursor, count: 100 }));
  added += page.added.length;
  cursor = page.next_cursor;
  more = page.has_more;
}
assert.ok(added > 100, `${added} transactions`);

await data(plaid.itemRemove({ access_token }));
const gone = await refused(plaid.accountsGet({ access_token }));
assert.ok(["ITEM_NOT_FOUND", "INVALID_ACCESS_TOKEN"].includes(gone.error_code), gone.error_code);
const bad = await refused(plaid.itemPublicTokenExchange({ public_token: "public-sandbox-0" }));
assert.equal(bad.error_code, "INVALID_PUBLIC_TOKEN");
console.log(`ok: plaid for Node${through ? ", through Strongroom" : ""}`);
