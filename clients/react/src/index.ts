import { useEffect, useState, useSyncExternalStore } from "react";
import { type ConnectState, Flow, type FlowOptions } from "./flow.js";

export { type DapiCallbacks, dapiConnect, type LinkEvents, loadScript, type OpenedLink, type OpenLink, plaidLink, type PlaidLinkOptions, type PlaidScript, sandboxLink, type SandboxLinkOptions } from "./adapters.js";
export type { ConnectState, Session, SessionSource } from "./flow.js";

export type UseConnectBankOptions = FlowOptions;

export interface ConnectBank {
  /** Where it stands; every answer is one. */
  state: ConnectState;
  /** Opens the bank link. Call it in the click itself, because browsers open popups nowhere else. */
  open: () => void;
  /** Back to `idle`, if no result is on its way. */
  reset: () => void;
}

const IDLE: ConnectState = { status: "idle" };

/**
 * What is behind a "connect your bank" button. `session` is what the app's backend got from `POST /v1/connect-sessions`,
 * as it came (or a function that fetches it; `null` while it is not there). `open` opens the bank link: `dapiConnect`,
 * `plaidLink`, `sandboxLink`, or a function of one's own.
 */
export function useConnectBank(options: UseConnectBankOptions): ConnectBank {
  const [flow] = useState(() => new Flow(options));
  const { session } = options;
  // A function is often another one in each render, without being another session.
  const known = typeof session === "function" ? "function" : typeof session === "string" ? session : session?.token;
  useEffect(() => {
    flow.options = options;
  });
  useEffect(() => flow.attach(), [flow, known]);
  const state = useSyncExternalStore(flow.subscribe, flow.state, () => IDLE);
  return { state, open: flow.open, reset: flow.reset };
}
