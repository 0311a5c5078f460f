// What opens when the user connects a bank, by what the backend says. `@strongroom/react` has an adapter for each.
import { dapiConnect, loadScript, type OpenLink, plaidLink, sandboxLink } from "@strongroom/react";
import type { Bank } from "./api";

/** `token` fetches the link token with which Plaid's Link opens: of a new login, or of the repair of one. */
export function opener(bank: Bank, user: string, token: () => Promise<string>): OpenLink {
  const { link } = bank;
  switch (link.kind) {
    case "sandbox":
      return sandboxLink(link.url, bank.id === "plaid" ? { page: "link", token } : { query: { clientUserID: user } });
    case "plaid":
      return plaidLink({ token });
    case "dapi":
      return connect(link.appKey, user);
  }
}

/** What Dapi's script puts on the page, as far as it is used here. */
declare global {
  interface Window {
    Dapi?: {
      environments: { sandbox: string; production: string };
      create(options: object): { open(): void; close(): void };
    };
  }
}

function connect(appKey: string, clientUserID: string): OpenLink {
  return async (events) => {
    await loadScript("https://cdn.dapi.com/connect/v3/connector.js");
    const dapi = window.Dapi!;
    return dapiConnect((callbacks) => {
      const options = { environment: dapi.environments.production, appKey, clientUserID, countries: ["AE"] };
      // Connect has to be ready before it can be opened.
      const handler = dapi.create({ ...options, ...callbacks, onReady: () => handler.open() });
      return { close: () => handler.close() };
    })(events);
  };
}
