// Connect's page: bank, login, one-time password, result. The result is made by the control API and
// goes to the page that opened or framed this one, at the origin named in the query and no other.
"use strict";

const RIGHT_CODE = "123456";
const FAILING_USERNAME = "denied";
const LEAVING_USERNAME = "cancel";
// How long a popup shows that it worked before it closes itself.
const SHOW_SUCCESS_MILLIS = 1200;

const query = new URLSearchParams(location.search);
const origin = query.get("origin");
const byId = (id) => document.getElementById(id);
const steps = ["banks", "login", "otp", "done"];
const chosen = { bank: null, username: null };
let step = "banks";
let finished = false;

// An opener wins over a parent: a popup has no parent frame.
function listener() {
  if (!origin) return null;
  if (window.opener) return window.opener;
  return window.parent === window ? null : window.parent;
}

function report(event, result) {
  const target = listener();
  if (!target) return false;
  target.postMessage({ source: "dapi-sandbox-connect", event, result }, origin);
  return true;
}

function show(next, focus = true) {
  step = next;
  for (const name of steps) byId(name).hidden = name !== next;
  // A failed user stays as far as they came.
  if (next !== "done" || !byId("done").classList.contains("failed")) {
    const reached = steps.indexOf(next);
    document.querySelectorAll(".steps li").forEach((mark, place) => {
      mark.classList.toggle("past", place <= reached);
    });
  }
  byId("back").hidden = next !== "login" && next !== "otp";
  byId("exit").hidden = finished;
  if (focus) byId(`${next}-title`).focus();
}

function say(text) {
  byId("status").textContent = text;
}

function complain(field, text) {
  const problem = byId(`${field.id}-problem`);
  problem.textContent = text;
  problem.hidden = !text;
  if (!text) {
    field.removeAttribute("aria-invalid");
    return;
  }
  field.setAttribute("aria-invalid", "true");
  field.focus();
  say(text);
}

function requestBody() {
  const body = { bank: chosen.bank, username: chosen.username };
  for (const name of ["clientUserID", "appKey"]) {
    if (query.get(name)) body[name] = query.get(name);
  }
  if (query.get("codeLifetime")) body.codeLifetime = Number(query.get("codeLifetime"));
  return body;
}

async function link() {
  const response = await fetch("/sandbox/connect", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(requestBody()),
  });
  const result = await response.json();
  if (!response.ok) throw new Error(result.detail);
  return result;
}

function finish({ failed, title, text, retry }) {
  byId("done").classList.toggle("failed", failed);
  byId("done-title").textContent = title;
  byId("done-text").textContent = text;
  byId("retry").hidden = !retry;
  byId("standalone").hidden = true;
  show("done");
}

function succeed(result) {
  finished = true;
  const delivered = report("success", result);
  finish({
    failed: false,
    title: "Your bank is connected",
    text: delivered ? "You can go back to the app now." : "The access code is ready to be exchanged.",
  });
  if (!delivered) {
    byId("result").textContent = JSON.stringify(result, null, 2);
    byId("standalone").hidden = false;
  } else if (window.opener) {
    setTimeout(() => window.close(), SHOW_SUCCESS_MILLIS);
  }
}

function fail(result) {
  report("failure", result);
  finish({
    failed: true,
    title: "The bank refused the login",
    text: "Check the user name and password, then try again.",
    retry: true,
  });
}

function leave() {
  finished = true;
  report("exit", null);
  if (window.opener) window.close();
  finish({
    failed: true,
    title: "Nothing was connected",
    text: "You can close this window.",
    retry: true,
  });
}

// Keeps a second click from doing the same again while the first is under way. The button stays
// focusable: a disabled one would drop the focus of a keyboard user.
async function busy(form, work) {
  const button = form.querySelector("button");
  if (button.getAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } catch (error) {
    finish({
      failed: true,
      title: "The sandbox could not do it",
      text: error.message || "It did not answer.",
      retry: true,
    });
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

byId("banks").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-bank]");
  if (!button) return;
  chosen.bank = button.dataset.bank;
  const name = button.querySelector("strong").textContent;
  document.querySelectorAll("[data-bank-name]").forEach((place) => {
    place.textContent = name;
  });
  show("login");
});

byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { username, password } = event.target.elements;
  complain(username, "");
  complain(password, "");
  if (!username.value.trim()) return complain(username, "Type a user name.");
  if (!password.value) return complain(password, "Type a password.");
  chosen.username = username.value.trim();
  if (chosen.username === LEAVING_USERNAME) return leave();
  say("Logging in");
  busy(event.target, async () => {
    if (chosen.username === FAILING_USERNAME) return fail(await link());
    byId("code").value = "";
    complain(byId("code"), "");
    show("otp", false);
    byId("code").focus();
    say("The bank asks for a code");
  });
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

byId("back").addEventListener("click", () => {
  if (step === "otp") return show("login");
  show("banks", false);
  document.querySelector(`[data-bank="${chosen.bank}"]`).focus();
});

byId("exit").addEventListener("click", leave);

byId("retry").addEventListener("click", () => {
  finished = false;
  show("banks");
});

byId("copy").addEventListener("click", async (event) => {
  try {
    await navigator.clipboard.writeText(byId("result").textContent);
    event.target.textContent = "Copied";
    say("Copied");
  } catch {
    // Without a secure context there is no clipboard; then Ctrl+C on the selection has to do.
    getSelection().selectAllChildren(byId("result"));
    say("Selected, ready to be copied");
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !finished) leave();
});

show("banks", false);
