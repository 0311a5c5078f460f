// The demo's page: opens Dapi's Connect or Plaid's Link, hands its result to Strongroom with a connect
// session, and shows what became of it. It never holds client credentials; what needs them goes through the backend.
"use strict";

const { strongroom, sandbox, user, foreignDapi, foreignPlaid } = document.body.dataset;
const byId = (id) => document.getElementById(id);

// In what the bank links differ. All else on this page is the same for both.
const LINKS = {
  dapi: {
    name: "Dapi",
    // The provider's page, the messages that it sends, and its URL.
    page: "Connect",
    source: "dapi-sandbox-connect",
    url: async () => `${sandbox}/connect?${new URLSearchParams({ clientUserID: user, origin: location.origin })}`,
    // Where exchanges go, if that is not the sandbox.
    elsewhere: foreignDapi,
    // What is wiped with the code, and destroyed with the token.
    wiped: "The code is wiped, and so is the user secret",
    destroyed: "Token and user secret are destroyed",
    // An account in the provider's answer.
    account: ({ name, type, iban, number }) => [name, `${type} · ${iban || number}`],
  },
  plaid: {
    name: "Plaid",
    page: "Link",
    source: "plaid-sandbox-link",
    url: async () => {
      const { link_token: token } = await backend("/link-token", {});
      return `${sandbox}/plaid/link?${new URLSearchParams({ token, origin: location.origin })}`;
    },
    elsewhere: foreignPlaid,
    wiped: "The code is wiped",
    destroyed: "The token is destroyed",
    account: ({ name, subtype, mask, balances }) => [
      name,
      `${subtype} ···· ${mask} · ${balances.current} ${balances.iso_currency_code}`,
    ],
  },
};

// How often the list is read while something is under way.
const LOOK_AGAIN_MILLIS = 1000;
// How long a revealed token stays on the screen.
const SHOWN_MILLIS = 60_000;
// What Strongroom adds to the `exp` of a code, because clocks differ.
const ALLOWANCE_SECONDS = 60;
const UNDER_WAY = ["pending", "revoking"];

let connections = [];
let selected = null;
// What PostgreSQL holds of the selected connection.
let inside = null;
// A result that was handed in and not answered yet.
let handingIn = false;
// The connection whose code is watched.
let watched = null;
let expecting = false;
let session = null;
// The bank link whose page is open, or was last.
let opened = null;

function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(text) {
  byId("status").textContent = text;
}

// ------------------------------------------------------------------------------------------------
// Calls

class Refusal extends Error {
  constructor(problem, status) {
    // Strongroom's, Plaid's and Dapi's words for what is wrong.
    super(problem.detail || problem.error_message || problem.msg || `It answered ${status}.`);
    this.code = problem.code;
  }
}

async function call(who, url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error(`${who} cannot be reached. Does “strongroom dev” still run?`);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(answer, response.status);
  return answer;
}

function backend(path, body) {
  if (body === undefined) return call("The demo’s backend", `/api${path}`);
  return call("The demo’s backend", `/api${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

// The backend's path to what concerns one connection.
function about({ id, provider }, what) {
  return `/connections/${id}/${what}?link=${provider}`;
}

// What a frontend does: the result as it came, with the session of the user who is logged in.
function handIn(result) {
  return call("Strongroom", `${strongroom}/v1/connections`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${session}` },
    body: JSON.stringify(result),
  });
}

function complain(error) {
  const place = byId("trouble");
  place.textContent = error ? error.message : "";
  place.hidden = !error;
}

// Keeps a second click from doing the same again while the first is under way. The button stays
// focusable: a disabled one would drop the focus of a keyboard user.
async function busy(button, work) {
  if (button.getAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  complain(null);
  try {
    await work();
  } catch (error) {
    complain(error);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

// ------------------------------------------------------------------------------------------------
// Words and drawings

const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function clock(text, format = time) {
  return el("time", { dateTime: text, textContent: format.format(new Date(text)) });
}

function short(text) {
  return text.length > 16 ? `${text.slice(0, 8)}…${text.slice(-6)}` : text;
}

// Dapi tells no bank's name; an app knows it from its own page, this one from the sandbox.
const banks = new Map();

async function learnBanks(list) {
  const unknown = list.some(({ institution, connectionID }) => !institution && connectionID && !banks.has(connectionID));
  if (!unknown || foreignDapi) return;
  const { logins } = await backend("/logins");
  for (const { connectionID, bank } of logins) banks.set(connectionID, bank.name);
  // A login of an earlier run of the sandbox stays without a name.
  for (const { connectionID } of list) if (connectionID && !banks.has(connectionID)) banks.set(connectionID, null);
}

// What a connection is called: by its bank if that is known, by the provider's name for the login otherwise.
function nameOf({ institution, connectionID }) {
  if (institution && institution.name) return institution.name;
  return banks.get(connectionID) || (connectionID ? short(connectionID) : "not known yet");
}

function isNamed({ institution, connectionID }) {
  return Boolean(institution || banks.get(connectionID));
}

function pill(status) {
  return el("span", { className: `pill ${status}`, textContent: status });
}

const SIGNS = {
  done: ["M4 12.5l5 5L20 6.5"],
  failed: ["M6 6l12 12", "M18 6L6 18"],
  now: ["M12 3a9 9 0 1 1-9 9"],
  todo: ["M12 4a8 8 0 1 0 .01 0"],
};
const SIGN_WORDS = { done: "done", failed: "failed", now: "under way", todo: "not yet" };

function sign(state) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  for (const drawing of SIGNS[state]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", drawing);
    if (state === "now") path.setAttribute("class", "ring");
    svg.append(path);
  }
  return svg;
}

// ------------------------------------------------------------------------------------------------
// The steps

const STEPS = {
  received: "Code received",
  exchanged: "Exchanged",
  sealed: "Sealed",
  active: "Active",
};

const WAITING_TEXTS = {
  received: "This page hands in what the bank link gave it. The code is sealed before anything else happens.",
  exchanged: "Strongroom trades the code for the permanent token, once, inside its 30 minutes.",
  sealed: "The token is encrypted under a key of this user’s own. The code is wiped.",
  active: "Your backends may use it. No browser ever needs it.",
};

function step(state, title, text, at, figure) {
  const heading = el("h3", {}, el("span", {}, title));
  if (at) heading.append(clock(at));
  const item = el("li", { className: state }, sign(state), heading, el("p", { textContent: text }));
  heading.firstChild.append(
    el("span", { className: "visually-hidden", textContent: `, ${SIGN_WORDS[state]}` }),
  );
  if (figure) item.append(figure);
  return item;
}

function milliseconds(connection) {
  return Math.max(0, new Date(connection.activatedAt) - new Date(connection.createdAt));
}

const READ_ON = {
  rejected: (c) => ["failed", "Refused", `${LINKS[c.provider].name} refused the code: ${c.failure.detail}`],
  orphaned: (c) => ["failed", "Answer lost", `${c.failure.detail} The user has to connect again.`],
  expired: (c) => [
    "failed",
    "Expired",
    `${c.failure.detail} ${LINKS[c.provider].wiped}: nothing is left to leak.`,
  ],
};

const ENDINGS = {
  revoking: (c) => [
    "now",
    "Revoking",
    `Unusable here from now on. The delinking is repeated until ${LINKS[c.provider].name} confirms; attempts so far: ${c.revocation.attempts}.`,
    c.revocation.requestedAt,
  ],
  delinked: (c) => [
    "done",
    "Delinked",
    `${LINKS[c.provider].name} confirmed it. ${LINKS[c.provider].destroyed}; what is left is the record.`,
    c.revocation.confirmedAt,
  ],
  invalidated: (c) => [
    "done",
    "Invalidated",
    c.replacedBy
      ? "The same bank login was linked again. The newer connection took this one’s place, and its token is destroyed here."
      : "The token was declared dead and is destroyed here.",
    c.revocation && c.revocation.confirmedAt,
  ],
};

function untouched() {
  return Object.keys(STEPS).map((name) => step("todo", STEPS[name], WAITING_TEXTS[name]));
}

function pendingSteps(connection, figure) {
  return [
    step("done", STEPS.received, "The code lies sealed. Whatever happens now, it is not lost.", connection.createdAt, figure),
    step(
      "now",
      STEPS.exchanged,
      `${LINKS[connection.provider].name} has not given a conclusive answer. Strongroom asks again until ${time.format(new Date(connection.codeExpiresAt))}.`,
    ),
    step("todo", STEPS.sealed, WAITING_TEXTS.sealed),
    step("todo", STEPS.active, WAITING_TEXTS.active),
  ];
}

function failedSteps(connection) {
  const [state, title, text] = READ_ON[connection.status](connection);
  return [
    step("done", STEPS.received, "The code was sealed before anything else happened.", connection.createdAt),
    step(state, title, text),
  ];
}

function exchangedSteps(connection, figure) {
  const live = connection.status === "active";
  const { name, page } = LINKS[connection.provider];
  const steps = [
    step("done", STEPS.received, `This page handed in ${page}’s result. The code was sealed at once.`, connection.createdAt),
    step("done", STEPS.exchanged, `${name} gave the permanent token, ${milliseconds(connection)} ms after the code came. The code is wiped.`),
    step(
      "done",
      STEPS.sealed,
      figure ? "AES-256-GCM, under a key that seals for this user alone. So it lies in PostgreSQL:" : "The token was sealed under this user’s own key.",
      null,
      figure,
    ),
    step("done", STEPS.active, live ? "Your backends may use it. No browser ever needs it." : "It could be used.", connection.activatedAt),
  ];
  const ending = ENDINGS[connection.status];
  if (ending) steps.push(step(...ending(connection)));
  return steps;
}

function stepsOf(connection) {
  const figure = inside && inside.sealed ? sealedFigure(inside.sealed) : null;
  if (connection.status === "pending") return pendingSteps(connection, figure);
  if (READ_ON[connection.status]) return failedSteps(connection);
  if (connection.activatedAt) return exchangedSteps(connection, figure);
  return [
    step("done", STEPS.received, "The code was sealed before anything else happened.", connection.createdAt),
    step(...ENDINGS[connection.status](connection)),
  ];
}

const PART_WORDS = {
  format: "format",
  dataKey: "data key’s id",
  nonce: "nonce",
  ciphertext: "ciphertext",
  tag: "tag",
};

function sealedFigure(sealed) {
  const bytes = el("pre", { tabIndex: 0 });
  bytes.setAttribute("role", "region");
  bytes.setAttribute("aria-label", "The sealed bytes in hexadecimal");
  const legend = el("ul");
  for (const part of sealed.parts) {
    const grouped = part.hex.replace(/(.{8})(?=.)/g, "$1 ");
    bytes.append(el("span", { className: part.name, textContent: grouped }), " ");
    legend.append(el("li", { className: part.name, textContent: PART_WORDS[part.name] }));
  }
  const row = (name, value) => [el("b", { textContent: name }), el("code", { textContent: value })];
  return el(
    "figure",
    { className: "sealed" },
    el(
      "figcaption",
      {},
      ...row("column", `connections.${sealed.column}, ${sealed.bytes} bytes`),
      ...row("data key", sealed.dataKeyID),
      ...row("wrapped by", sealed.masterKeyID),
    ),
    bytes,
    legend,
  );
}

const ACTORS = { client: "a client", session: "this page’s session", operator: "the operator", service: "Strongroom" };

function pair([name, text]) {
  return el("li", {}, el("b", { textContent: name }), el("span", { textContent: text }));
}

function linkedLines({ institution, accounts }) {
  const bank = institution ? [["Institution", institution.name || institution.id]] : [];
  const each = (accounts || []).map(({ name, type, mask }) => [name || "Account", `${type} ···· ${mask}`]);
  return [...bank, ...each].map(pair);
}

function eventLine(event) {
  const by = `${ACTORS[event.actor]}${event.reason ? `: “${event.reason}”` : ""}`;
  return el("li", {}, clock(event.at), el("b", { textContent: event.action }), el("span", { textContent: by }));
}

// ------------------------------------------------------------------------------------------------
// Drawing

// Redraws only what changed, so that a reader's place and a running animation stay.
function redraw(place, key, children) {
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(...children());
}

const current = () => connections.find(({ id }) => id === selected);

// The institution, the accounts, and an older connection of theirs. Dapi tells none of it.
function drawLinked({ institution, accounts, duplicateOf } = {}) {
  const known = { institution, accounts };
  byId("linked").hidden = !institution && !accounts;
  redraw(byId("linked-list"), JSON.stringify(known), () => linkedLines(known));
  byId("duplicate").hidden = !duplicateOf;
  byId("older").dataset.id = duplicateOf || "";
  byId("older").hidden = !connections.some(({ id }) => id === duplicateOf);
}

function drawInside() {
  const connection = current();
  byId("pill").hidden = !connection;
  byId("deeds").hidden = !connection || connection.status !== "active";
  drawLinked(connection);
  if (!connection || connection.status !== "active") {
    hideToken();
    hideAccounts();
    askForReason(false);
  }
  if (!connection) {
    const title = handingIn ? "Handing in the code" : "What will happen";
    redraw(byId("inside-title"), title, () => [title]);
    redraw(byId("steps"), `none ${handingIn}`, () => {
      const steps = untouched();
      if (handingIn) steps[0] = step("now", STEPS.received, WAITING_TEXTS.received);
      return steps;
    });
    byId("record").hidden = true;
    return;
  }
  const name = nameOf(connection);
  redraw(byId("inside-title"), name, () =>
    isNamed(connection) ? [name] : ["Bank login ", el("span", { className: "whole", textContent: name })],
  );
  Object.assign(byId("pill"), { className: `pill ${connection.status}`, textContent: connection.status });
  redraw(byId("steps"), JSON.stringify([connection, inside && inside.sealed]), () => stepsOf(connection));
  const audit = inside ? inside.audit : [];
  byId("record").hidden = audit.length === 0;
  redraw(byId("events"), JSON.stringify(audit), () => audit.map(eventLine));
}

function drawRows() {
  byId("none").hidden = connections.length > 0;
  const key = JSON.stringify([selected, connections.map((each) => [each.id, each.status, nameOf(each)])]);
  const focused = document.activeElement && document.activeElement.dataset.id;
  redraw(byId("rows"), key, () =>
    connections.map((connection) => {
      const button = el(
        "button",
        { type: "button" },
        el("span", { className: "login", textContent: nameOf(connection) }),
        pill(connection.status),
        el("span", { className: "when" }, `${LINKS[connection.provider].name} · `, clock(connection.createdAt, day)),
      );
      button.dataset.id = connection.id;
      if (connection.id === selected) button.setAttribute("aria-current", "true");
      return el("li", {}, button);
    }),
  );
  if (focused && document.activeElement === document.body) {
    const again = document.querySelector(`[data-id="${focused}"]`);
    if (again) again.focus();
  }
}

function draw() {
  drawRows();
  drawInside();
  drawCountdown();
}

// ------------------------------------------------------------------------------------------------
// Reading

let reading = null;

// Reads the list and the selected connection's inside. One reading at a time; a later request waits for
// a reading of its own.
function refresh() {
  const next = (reading || Promise.resolve()).catch(() => {}).then(read);
  reading = next;
  return next;
}

async function read() {
  const known = new Set(connections.map(({ id }) => id));
  const before = new Map(connections.map(({ id, status }) => [id, status]));
  const lists = Object.keys(LINKS).map((link) => backend(`/connections?link=${link}`));
  const list = (await Promise.all(lists)).flatMap((answer) => answer.connections);
  list.sort((a, b) => new Date(b.createdAt) - new Date(a.createdAt));
  await learnBanks(list);
  const fresh = list.find(({ id }) => !known.has(id));
  if (handingIn && fresh) selected = fresh.id;
  if (expecting && fresh) {
    watched = fresh.id;
    expecting = false;
  }
  connections = list;
  const id = selected;
  const looked = current() && (await backend(about(current(), "inside")));
  if (id === selected) inside = looked || null;
  for (const { id, status } of connections) {
    if (before.has(id) && before.get(id) !== status) say(`A connection is ${status} now.`);
  }
  draw();
}

function select(id) {
  if (selected !== id) {
    selected = id;
    inside = null;
    hideToken();
    hideAccounts();
    askForReason(false);
  }
  return refresh();
}

// While something is under way the list is read again and again.
setInterval(() => {
  const waiting = connections.some(({ status }) => UNDER_WAY.includes(status));
  if ((waiting || handingIn) && !document.hidden) refresh().then(() => complain(null), complain);
  drawCountdown();
}, LOOK_AGAIN_MILLIS);

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh().catch(complain);
});

// ------------------------------------------------------------------------------------------------
// Connecting

const dialog = byId("dialog");

const choices = [...byId("links").querySelectorAll("input")];

async function openLink() {
  const link = choices.find(({ checked }) => checked).value;
  session = (await backend(`/session?link=${link}`, {})).token;
  byId("frame").src = await LINKS[link].url();
  byId("dialog-title").textContent = `${LINKS[link].page}, played by the sandbox`;
  opened = link;
  byId("close").hidden = false;
  dialog.showModal();
}

function closeLink() {
  if (dialog.open) dialog.close();
}

// Posts a result and follows what becomes of it.
async function follow(result) {
  handingIn = true;
  selected = null;
  inside = null;
  draw();
  try {
    const connection = await handIn(result);
    selected = connection.id;
    say(connection.status === "active" ? "The bank is connected. The token is sealed." : `The connection is ${connection.status}.`);
  } finally {
    handingIn = false;
    await refresh();
  }
}

// The only messages that count are those of the page that was opened, from its frame.
addEventListener("message", (event) => {
  const frame = byId("frame");
  if (event.origin !== sandbox || event.source !== frame.contentWindow) return;
  const { source, event: what, result } = event.data || {};
  if (!opened || source !== LINKS[opened].source) return;
  if (what === "success") {
    closeLink();
    const title = byId("inside-title");
    title.focus({ preventScroll: true });
    byId("inside").scrollIntoView({ block: "nearest" });
    follow(result).catch(complain);
  }
  if (what === "exit") {
    closeLink();
    say("Nothing was connected.");
  }
});

// A keyboard user goes straight into the page, which closes by its own button: this one's is for a page that does not come.
byId("frame").addEventListener("load", () => {
  if (!dialog.open) return;
  byId("frame").focus();
  byId("close").hidden = true;
});

// A click beside the dialog closes it as well.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) closeLink();
});

dialog.addEventListener("close", () => byId("frame").removeAttribute("src"));
byId("close").addEventListener("click", closeLink);
byId("connect").addEventListener("click", () => busy(byId("connect"), openLink));

byId("rows").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-id]");
  if (!button) return;
  select(button.dataset.id).then(() => byId("inside").scrollIntoView({ block: "nearest" }), complain);
});

byId("older").addEventListener("click", () => {
  select(byId("older").dataset.id).then(() => byId("inside-title").focus(), complain);
});

// ------------------------------------------------------------------------------------------------
// Reading accounts, revealing and delinking

function hideAccounts() {
  byId("accounts").hidden = true;
  byId("accounts-list").replaceChildren();
}

byId("read").addEventListener("click", () => {
  busy(byId("read"), async () => {
    const connection = current();
    const { name, account } = LINKS[connection.provider];
    const { accounts } = await backend(about(connection, "accounts"));
    if (connection.id !== selected) return;
    byId("accounts-list").replaceChildren(...(accounts || []).map(account).map(pair));
    byId("called").textContent = name;
    byId("accounts").hidden = false;
    byId("accounts-title").focus();
    await refresh();
  });
});

let hiding = null;

function hideToken() {
  clearTimeout(hiding);
  byId("revealed").hidden = true;
  byId("access-token").textContent = "";
  byId("user-secret").textContent = "";
}

function complainOfReason(text) {
  const problem = byId("reason-problem");
  problem.textContent = text;
  problem.hidden = !text;
  if (!text) return byId("reason").removeAttribute("aria-invalid");
  byId("reason").setAttribute("aria-invalid", "true");
  byId("reason").focus();
  say(text);
}

function askForReason(asked) {
  complainOfReason("");
  byId("reveal-form").hidden = !asked;
  byId("reveal").setAttribute("aria-expanded", String(asked));
}

byId("reveal").addEventListener("click", () => {
  hideToken();
  askForReason(byId("reveal-form").hidden);
  if (!byId("reveal-form").hidden) byId("reason").focus();
});

byId("reveal-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const reason = byId("reason").value.trim();
  complainOfReason("");
  if (!reason) return complainOfReason("Type a reason: it goes into the audit trail.");
  busy(event.submitter || byId("reveal"), async () => {
    const connection = current();
    const secrets = await backend(about(connection, "reveal"), { reason });
    if (connection.id !== selected) return;
    askForReason(false);
    byId("access-token").textContent = secrets.accessToken;
    byId("user-secret").textContent = secrets.userSecret;
    byId("user-secret-part").hidden = !secrets.userSecret;
    byId("revealed").hidden = false;
    byId("revealed-title").focus();
    hiding = setTimeout(hideToken, SHOWN_MILLIS);
    await refresh();
  });
});

byId("hide").addEventListener("click", () => {
  hideToken();
  byId("reveal").focus();
});

byId("delink").addEventListener("click", () => {
  busy(byId("delink"), async () => {
    hideToken();
    const { status } = await backend(about(current(), "delink"), {});
    await refresh();
    say(`The connection is ${status}.`);
    byId("inside-title").focus();
  });
});

// ------------------------------------------------------------------------------------------------
// Expiry

let phase = null;

function showLeft(name, seconds, text) {
  const time = seconds === null ? "" : `${seconds} s`;
  byId("seconds").textContent = time;
  byId("phase").textContent = text;
  // Once for each phase: every second would be a torment.
  if (phase !== name) {
    phase = name;
    say(`${time} ${text}`.trim());
  }
}

function drawCountdown() {
  const connection = connections.find(({ id }) => id === watched);
  byId("countdown").hidden = !connection;
  if (!connection) return;
  const received = new Date(connection.createdAt);
  const end = new Date(connection.codeExpiresAt);
  const now = new Date();
  const left = Math.ceil((end - now) / 1000);
  const ended = connection.status !== "pending";
  const share = ended ? 1 : Math.min(1, Math.max(0, (now - received) / (end - received)));
  byId("hand").style.setProperty("--share", share.toFixed(3));
  if (ended) {
    showLeft("ended", null, `It is ${connection.status}: the code is wiped, and nothing of it is left.`);
  } else if (left > ALLOWANCE_SECONDS) {
    showLeft("life", left - ALLOWANCE_SECONDS, "of the code’s own life are left. Dapi answers 503.");
  } else if (left > 0) {
    showLeft("grace", left, "more: clocks differ, so Strongroom goes on for a minute after the code’s own end.");
  } else {
    showLeft("sweep", null, "The window is closed. The next sweep wipes the code.");
  }
}

byId("expire").addEventListener("click", () => {
  busy(byId("expire"), async () => {
    session = (await backend("/session?link=dapi", {})).token;
    const result = await backend("/expiry", {});
    watched = null;
    expecting = true;
    await follow(result);
  });
});

// ------------------------------------------------------------------------------------------------
// The start

for (const choice of choices) {
  const elsewhere = Boolean(LINKS[choice.value].elsewhere);
  byId(`foreign-${choice.value}`).hidden = !elsewhere;
  choice.disabled = elsewhere;
}
const usable = choices.filter(({ disabled }) => !disabled);
if (usable.length > 0) usable[0].checked = true;
byId("links").hidden = usable.length === 0;
byId("connect").hidden = usable.length === 0;
byId("expire").hidden = Boolean(foreignDapi);

draw();
refresh()
  .then(() => (connections.length > 0 ? select(connections[0].id) : null))
  .catch(complain);
