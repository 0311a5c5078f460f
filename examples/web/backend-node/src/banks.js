// How the two bank links are asked for the same two things. Every call goes through Strongroom by the connection's id: it
// puts the token in, lets calls with one token wait for each other where they must, and starts none after a revocation.
//
// An answer that is the bank link's own comes back whatever its status; a refusal of Strongroom's is thrown.
import { Refusal } from "./errors.js";

const DAYS = 30;

/** The first and the last day that are shown. */
function period() {
  const day = (date) => date.toISOString().slice(0, 10);
  const now = Date.now();
  return [day(new Date(now - DAYS * 86_400_000)), day(new Date(now))];
}

/** The bank link's own refusal, such as INVALID_ACCOUNT_ID or PRODUCT_NOT_READY. */
function refused(type, { retryAfter }) {
  return new Refusal(502, "bank_refused", { type, ...(retryAfter !== undefined && { retryAfter }) });
}

export function dapi(strongroom, id) {
  async function call(path, body) {
    const answer = await strongroom.callDapi(id, path, body);
    // Dapi may ask the user something ("user_input_required"). For what is called here it hardly ever does;
    // docs/calling-dapi.md shows how to go on.
    const { status, type } = answer.body;
    if (!answer.ok || status !== "done") throw refused(type ?? status, answer);
    return answer.body;
  }

  return {
    async accounts() {
      const { accountsMetadata } = await call("metadata/accounts/get");
      const { accounts } = await call("data/accounts/get");
      const shown = [];
      for (const { id: account, name, number, iban } of accounts) {
        const { balance } = await call("data/balance/get", { accountID: account });
        const ending = (iban ?? number ?? "").slice(-4);
        shown.push({ id: account, name, ending, balance: balance.amount, currency: balance.currency.code });
      }
      return { bankName: accountsMetadata.bankName, accounts: shown };
    },

    async transactions(account) {
      const [fromDate, toDate] = period();
      const { transactions } = await call("data/transactions/get", { accountID: account, fromDate, toDate });
      return transactions.map(({ date, description, amount, type, currency }) => ({
        date: date.slice(0, 10),
        description,
        amount: type === "debit" ? -amount : amount,
        currency: currency.code,
      }));
    },
  };
}

export function plaid(strongroom, id) {
  async function call(path, body) {
    const answer = await strongroom.callPlaid(id, path, body);
    if (!answer.ok) throw refused(answer.body.error_code, answer);
    return answer.body;
  }

  return {
    async accounts() {
      const { item, accounts } = await call("accounts/get");
      const shown = accounts.map(({ account_id: account, name, mask, balances }) => ({
        id: account,
        name,
        ending: mask ?? "",
        balance: balances.current,
        currency: balances.iso_currency_code,
      }));
      return { bankName: item.institution_name, accounts: shown };
    },

    // An app that keeps transactions asks `transactions/sync` for what is new instead, and keeps its cursor.
    async transactions(account) {
      const [start_date, end_date] = period();
      const options = { account_ids: [account], count: 100 };
      const { transactions } = await call("transactions/get", { start_date, end_date, options });
      return transactions.map(({ date, name, merchant_name, amount, iso_currency_code }) => ({
        date,
        description: merchant_name ?? name,
        // Plaid counts what leaves an account as positive.
        amount: -amount,
        currency: iso_currency_code,
      }));
    },
  };
}
