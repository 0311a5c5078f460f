// What the backend is told from outside, read once. `examples/web/start` takes it from the file that `strongroom dev`
// writes; in production it comes from where your other secrets come from.
import { fileURLToPath } from "node:url";
import { Strongroom } from "@strongroom/client";
import { dapi, plaid } from "./banks.js";

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

export const port = Number(process.env.PORT ?? 3000);
export const strongroomUrl = required("STRONGROOM_URL");
export const frontend = process.env.FRONTEND ?? fileURLToPath(new URL("../../frontend/dist", import.meta.url));

// The client may do more; what this backend needs is what it asks for. It never asks for `tokens:read`: balances and
// transactions are read through Strongroom, so that no bank token ever comes here.
const scope = "sessions:create connections:read connections:revoke dapi:call";

/** An app of Strongroom's: how it is called, and what the page opens. Yours probably has one of the two. */
function bank(id, name, calls, link) {
  const prefix = `STRONGROOM_${id.toUpperCase()}`;
  const clientId = required(`${prefix}_CLIENT_ID`);
  const clientSecret = required(`${prefix}_CLIENT_SECRET`);
  return { id, name, calls, link, strongroom: new Strongroom({ baseUrl: strongroomUrl, clientId, clientSecret, scope }) };
}

// Beside `strongroom dev`, its sandbox plays Connect and Link.
const sandbox = process.env.SANDBOX_URL && { kind: "sandbox", url: process.env.SANDBOX_URL };

export const banks = new Map([
  ["dapi", bank("dapi", "Dapi", dapi, sandbox ?? { kind: "dapi", appKey: process.env.DAPI_APP_KEY ?? "" })],
  ["plaid", bank("plaid", "Plaid", plaid, sandbox ?? { kind: "plaid" })],
]);
