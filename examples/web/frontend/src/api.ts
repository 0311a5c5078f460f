// The page's own backend. It answers in a form of its own, and never with a secret, but for the connect session: that is
// for this user and this page, for half an hour.
import type { Session } from "@strongroom/react";

export interface Bank {
  id: "dapi" | "plaid";
  name: string;
  /** What opens when the user connects: the sandbox's page, or the real thing. */
  link: { kind: "sandbox"; url: string } | { kind: "dapi"; appKey: string } | { kind: "plaid" };
}

export interface Start {
  user: string | null;
  users: string[];
  strongroomUrl: string;
  banks: Bank[];
}

export interface Connection {
  id: string;
  bank: Bank["id"];
  status: "pending" | "active" | "rejected" | "expired" | "orphaned" | "revoking" | "delinked" | "invalidated";
  bankName: string | null;
  /** Why the user has to act before anything is read. */
  attention: string | null;
  failure: string | null;
  createdAt: string;
  /** True if the user has connected the same accounts before. */
  duplicate: boolean;
}

export interface Account {
  id: string;
  name: string;
  /** The last characters of its number. */
  ending: string;
  balance: number | null;
  currency: string | null;
}

export interface Accounts {
  bankName: string | null;
  accounts: Account[];
}

export interface Transaction {
  date: string;
  description: string;
  /** Negative if it left the account. */
  amount: number;
  currency: string | null;
}

/** A refusal of the backend; `unreachable` if there was no answer. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    /** Seconds after which to ask again. */
    readonly retryAfter?: number,
  ) {
    super(code);
  }
}

async function call<T>(method: "GET" | "POST" | "DELETE", path: string, body?: object): Promise<T> {
  const init: RequestInit = { method };
  if (body) Object.assign(init, { headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const response = await fetch(`/api${path}`, init).catch(() => {
    throw new ApiError("unreachable");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(answer.code ?? "internal", answer.retryAfter);
  return answer as T;
}

const at = ({ bank, id }: Pick<Connection, "bank" | "id">) => `/${bank}/connections/${encodeURIComponent(id)}`;

export const api = {
  start: () => call<Start>("GET", "/start"),
  logIn: (user: string) => call("POST", "/login", { user }),
  connectSession: (bank: Bank["id"]) => call<Session>("POST", `/${bank}/connect-sessions`),
  linkToken: async () => (await call<{ linkToken: string }>("POST", "/plaid/link-tokens")).linkToken,
  connections: async () => (await call<{ connections: Connection[] }>("GET", "/connections")).connections,
  accounts: (connection: Connection) => call<Accounts>("GET", `${at(connection)}/accounts`),
  transactions: async (connection: Connection, account: string) => {
    const path = `${at(connection)}/transactions?account=${encodeURIComponent(account)}`;
    return (await call<{ transactions: Transaction[] }>("GET", path)).transactions;
  },
  repairToken: async (connection: Connection) =>
    (await call<{ linkToken: string }>("POST", `${at(connection)}/link-tokens`)).linkToken,
  clearAttention: (connection: Connection) => call<Connection>("DELETE", `${at(connection)}/attention`),
  disconnect: (connection: Connection) => call<Connection>("POST", `${at(connection)}/delink`),
};
