// What the user reads. Codes are Strongroom's (docs/reference.md#problem-codes) or the backend's; nothing that a code does
// not have words for is shown as it came.
import type { ConnectState } from "@strongroom/react";
import type { ApiError, Connection } from "./api";

const AGAIN = "Please connect it again.";

/** Why a link came to nothing: of `POST /v1/connections`, as an answer or as the status of what it made. */
const RELINK: Record<string, string> = {
  // 410
  code_expired: `That took too long, and the bank’s permission ran out. ${AGAIN}`,
  expired: `That took too long, and the bank’s permission ran out. ${AGAIN}`,
  // 422
  code_rejected: `The bank did not accept the connection. ${AGAIN}`,
  rejected: `The bank did not accept the connection. ${AGAIN}`,
  connect_failed: `The bank did not let you in. ${AGAIN}`,
  // 409
  code_orphaned: `The bank’s answer was lost on its way. Nothing happened to your account. ${AGAIN}`,
  orphaned: `The bank’s answer was lost on its way. Nothing happened to your account. ${AGAIN}`,
};

const REFUSED: Record<string, string> = {
  // 409
  connection_of_another_user: "This bank login is connected to another user. It has to be disconnected there first.",
  code_already_received: "This connection was made by another user.",
  // 429
  too_many_requests: "That was tried many times. Please wait a minute and try again.",
  unreachable: "There is no connection to Tally at the moment.",
  unavailable: "Tally cannot do this right now. Please try again in a moment.",
};

const DEFECT = "Something went wrong, and it is not your fault. Please try again.";

export interface Words {
  tone: "busy" | "good" | "bad";
  text: string;
}

/** What becomes of a bank link, while it does. */
export function linkWords(state: ConnectState): Words | null {
  switch (state.status) {
    case "idle":
      return null;
    case "opening":
      return { tone: "busy", text: "Waiting for you to log in at your bank…" };
    case "handing-in":
      return { tone: "busy", text: state.error ? "No answer yet. Trying again; nothing is lost." : "Connecting…" };
    case "pending":
      return { tone: "busy", text: "Your bank takes its time. You can leave this page: it goes on by itself." };
    case "connected":
      return { tone: "good", text: "Your bank is connected." };
    case "needs-relink":
      return { tone: "bad", text: RELINK[state.problem?.code ?? state.connection?.status ?? ""] ?? `It did not work. ${AGAIN}` };
    case "failed": {
      const code = state.problem?.code ?? (state.error instanceof Error ? state.error.message : "");
      return { tone: "bad", text: REFUSED[code] ?? DEFECT };
    }
  }
}

const CALLS: Record<string, string> = {
  ...REFUSED,
  too_many_requests: "Your bank is busy. Trying again in a moment.",
  bank_refused: "Your bank did not answer this. Please try again later.",
  upstream_failed: "Your bank did not answer. Please try again.",
  upstream_timeout: "Your bank took too long to answer. Please try again.",
  connection_not_active: "This bank has been disconnected.",
  connection_needs_attention: "Your bank wants you to log in again.",
  not_found: "This connection is not there any more.",
};

export function errorWords({ code }: ApiError): string {
  return CALLS[code] ?? DEFECT;
}

/** The state of a connection in two words, and what is said about it below. */
export function statusWords({ status, attention }: Connection): { label: string; tone: Words["tone"]; more?: string } {
  switch (status) {
    case "active":
      return attention ? { label: "Needs you", tone: "bad" } : { label: "Connected", tone: "good" };
    case "pending":
      return { label: "Connecting", tone: "busy", more: "Your bank takes its time. You can leave this page." };
    case "revoking":
      return { label: "Disconnected", tone: "busy", more: "Tally reads nothing any more. Your bank has yet to confirm it." };
    case "delinked":
      return { label: "Disconnected", tone: "busy", more: "Your bank has confirmed it." };
    case "invalidated":
      return { label: "Replaced or ended", tone: "busy" };
    default:
      return { label: "Not connected", tone: "bad", more: RELINK[status] };
  }
}

export function money(amount: number | null, currency: string | null): string {
  if (amount === null) return "–";
  if (!currency) return amount.toFixed(2);
  return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(amount);
}

export function day(date: string): string {
  return new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" }).format(new Date(date));
}
