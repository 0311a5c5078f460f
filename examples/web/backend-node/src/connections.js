// What the page asks for: a connect session before the bank link opens, and afterwards everything by the connection's id.
import express from "express";
import { Refusal } from "./errors.js";
import { banks } from "./settings.js";

/** What the page needs of a connection, and no more. */
function shown({ id, status, provider, institution, attention, failure, createdAt, duplicateOf }) {
  return {
    id,
    bank: provider,
    status,
    bankName: institution?.name ?? null,
    attention: attention?.type ?? null,
    failure: failure?.type ?? null,
    createdAt,
    duplicate: Boolean(duplicateOf),
  };
}

function bankOf(request) {
  const bank = banks.get(request.params.bank);
  if (!bank) throw new Refusal(404, "not_found");
  return bank;
}

/**
 * The connection of a request, if it is this user's. The client of this backend may see the connections of all of them:
 * who may see which is decided here. Another user's answers like one that does not exist.
 */
async function ownConnection(request, bank = bankOf(request)) {
  const connection = await bank.strongroom.getConnection(request.params.id);
  if (connection.clientUserID !== request.user) throw new Refusal(404, "not_found");
  return { bank, id: connection.id, calls: bank.calls(bank.strongroom, connection.id) };
}

/**
 * Does something with a connection. If the bank link refuses it because the user has to log in again, Strongroom has
 * taken note and makes no further call, so as not to lock the user's bank account: the page is told the same as later.
 */
async function calling(request, work) {
  const { bank, id, calls } = await ownConnection(request);
  try {
    return await work(calls);
  } catch (error) {
    if (error.code === "bank_refused" && (await bank.strongroom.getConnection(id)).attention) {
      throw new Refusal(409, "connection_needs_attention");
    }
    throw error;
  }
}

export const connections = express.Router();

// The page hands the bank link's result to Strongroom itself, with this session. The code and the user secret in it
// never come through here.
connections.post("/:bank/connect-sessions", async (request, response) => {
  const { strongroom } = bankOf(request);
  response.status(201).json(await strongroom.createConnectSession({ clientUserID: request.user }));
});

// Plaid's Link is opened with a link token. `purpose` is what differs: a new login, or the repair of one.
async function linkToken(response, answer) {
  const { ok, body } = await answer;
  if (!ok) throw new Refusal(502, "bank_refused", { type: body.error_code });
  response.status(201).json({ linkToken: body.link_token });
}

const LINK = { client_name: "Tally", language: "en", country_codes: ["US"] };

connections.post("/plaid/link-tokens", (request, response) => {
  const body = { clientUserID: request.user, products: ["transactions"], ...LINK };
  return linkToken(response, banks.get("plaid").strongroom.createPlaidLinkToken(body));
});

// Asked again and again while something is pending. Where Strongroom's webhooks reach this backend, their receiver goes
// beside this router, and tells the page instead.
connections.get("/connections", async (request, response) => {
  const pages = [...banks.values()].map(({ strongroom }) =>
    strongroom.listConnections({ clientUserID: request.user, limit: 50 }),
  );
  const found = (await Promise.all(pages)).flatMap((page) => page.connections);
  found.sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  response.json({ connections: found.map(shown) });
});

connections.get("/:bank/connections/:id/accounts", async (request, response) => {
  response.json(await calling(request, (calls) => calls.accounts()));
});

connections.get("/:bank/connections/:id/transactions", async (request, response) => {
  const { account } = request.query;
  if (typeof account !== "string") throw new Refusal(400, "invalid_request");
  response.json({ transactions: await calling(request, (calls) => calls.transactions(account)) });
});

// Link repairs a login in "update mode", with a link token of the connection. No new token comes of it.
connections.post("/plaid/connections/:id/link-tokens", async (request, response) => {
  const { bank, id } = await ownConnection(request, banks.get("plaid"));
  await linkToken(response, bank.strongroom.callPlaid(id, "link/token/create", LINK));
});

// The user has repaired the login, or says that the bank has unlocked it: calls are made again.
connections.delete("/:bank/connections/:id/attention", async (request, response) => {
  const { bank, id } = await ownConnection(request);
  response.json(shown(await bank.strongroom.clearAttention(id)));
});

// `delinked` if the bank link has confirmed it, `revoking` if it has not yet. For the app both are the end: nothing uses
// the token any more, and Strongroom goes on until it is confirmed. Asking twice is safe.
connections.post("/:bank/connections/:id/delink", async (request, response) => {
  const { bank, id } = await ownConnection(request);
  response.json(shown(await bank.strongroom.delinkConnection(id)));
});
