// Link's page: institution, login, accounts, result. The result is made by the control API. In update mode the
// institution is the item's, and there are no accounts to choose.
import { byId, complain, control, page, query, say } from "/connect/page.js";

const { update } = document.body.dataset;
const chosen = { institutionID: null, username: null };
const { show, succeed, fail, busy, onBank, onLogin, nameBank } = page({
  source: "plaid-sandbox-link",
  steps: update ? ["login", "done"] : ["banks", "login", "accounts", "done"],
  before: update ? {} : { login: "banks", accounts: "login" },
  ready: "The public token is ready to be exchanged.",
});

async function link(more) {
  const body = { ...more };
  if (query.get("token")) body.linkToken = query.get("token");
  if (query.get("codeLifetime")) body.codeLifetime = Number(query.get("codeLifetime"));
  const result = await control("/sandbox/plaid/link", body);
  return result.error ? fail(result) : succeed(result);
}

// A row of the list of accounts.
function row({ name, mask, subtype }) {
  const item = document.createElement("li");
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.name = "account";
  box.value = mask;
  box.checked = true;
  const text = document.createElement("span");
  const title = document.createElement("strong");
  title.textContent = name;
  const small = document.createElement("small");
  small.textContent = `${subtype} ···· ${mask}`;
  text.append(title, small);
  label.append(box, text);
  item.append(label);
  return item;
}

if (update) nameBank(update);

onBank((institution) => {
  chosen.institutionID = institution;
});

onLogin(async (username, refused) => {
  chosen.username = username;
  if (update || refused) return link({ username });
  const { accounts } = await control(`/sandbox/plaid/accounts?${new URLSearchParams(chosen)}`);
  byId("account-list").replaceChildren(...accounts.map(row));
  complain(byId("account-list"), "");
  show("accounts");
  say("Choose accounts");
});

byId("accounts-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const accounts = new FormData(event.target).getAll("account");
  complain(byId("account-list"), "");
  if (!accounts.length) return complain(byId("account-list"), "Choose at least one account.");
  say("Connecting");
  busy(event.target, () => link({ ...chosen, accounts }));
});
