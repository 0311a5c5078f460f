// Connect's page: bank, login, one-time password, result. The result is made by the control API.
import { byId, complain, control, page, query, say } from "/connect/page.js";

const RIGHT_CODE = "123456";

const chosen = { bank: null, username: null };
const { show, succeed, fail, busy, onBank, onLogin } = page({
  source: "dapi-sandbox-connect",
  steps: ["banks", "login", "otp", "done"],
  before: { login: "banks", otp: "login" },
  ready: "The access code is ready to be exchanged.",
});

function link() {
  const body = { bank: chosen.bank, username: chosen.username };
  for (const name of ["clientUserID", "appKey"]) {
    if (query.get(name)) body[name] = query.get(name);
  }
  if (query.get("codeLifetime")) body.codeLifetime = Number(query.get("codeLifetime"));
  return control("/sandbox/connect", body);
}

onBank((bank) => {
  chosen.bank = bank;
});

onLogin(async (username, refused) => {
  chosen.username = username;
  if (refused) return fail(await link());
  byId("code").value = "";
  complain(byId("code"), "");
  show("otp", false);
  byId("code").focus();
  say("The bank asks for a code");
});

byId("otp-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { code } = event.target.elements;
  complain(code, "");
  if (code.value.trim() !== RIGHT_CODE) {
    return complain(code, "That is not the code. Try again.");
  }
  say("Connecting");
  busy(event.target, async () => {
    const result = await link();
    return result.success ? succeed(result) : fail(result);
  });
});
