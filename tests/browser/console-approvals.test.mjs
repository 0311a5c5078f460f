// Four eyes in headless Chromium, with STRONGROOM_FOUR_EYES=20: what Anna asks for Ben sees in full and approves, signed in by a
// passkey of Chromium's own authenticator; and the receipt of an erasure, checked in the browser. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";
import { accessible, PHONE, signIn, signInByPasskey } from "./console.mjs";

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

const REASON = "laptop with a client secret lost";
// A user has three or four connections: more than one person may revoke.
const users = (first) => Array.from({ length: 8 }, (_, n) => `moved-${first + n}`);
const main = (page) => page.locator("main");

// Anna fills the form of an incident, sees its dry run, and asks. Returns the address of the request.
async function asksToRevoke({ page, go, app }, names) {
  await go(`${app}/incident/new`);
  await page.getByLabel("Users, one in a line").fill(names.join("\n"));
  await page.getByRole("button", { name: "Count them" }).click();
  await page.getByText("A second person has to approve this.").waitFor();
  await accessible(page);
  await page.getByLabel("Reason").fill(REASON);
  await page.getByRole("button", { name: /^Ask to revoke \d+ connections$/ }).click();
  await page.getByText("You asked for it: somebody else has to approve.").waitFor();
  return new URL(page.url()).pathname;
}

// Sends the form of a page's session to another address, as a script of the requester's could.
function send(page, path) {
  return page.evaluate(async (path) => {
    const body = new URLSearchParams({ token: document.querySelector("input[name=token]").value });
    return (await fetch(path, { method: "POST", body })).status;
  }, path);
}

async function approve({ page, go }, request) {
  await go(request);
  await page.getByRole("link", { name: "Approve…" }).click();
  await page.getByText("This cannot be undone").waitFor();
  await accessible(page);
  await page.getByRole("button", { name: "Approve and carry out" }).click();
  await page.waitForURL((url) => !url.pathname.endsWith("/approve"));
  const ledTo = new URL(page.url()).pathname;
  await go(request);
  await page.getByText("approved by operator: ben").waitFor();
  return ledTo;
}

async function statuses({ page, go, app }, user) {
  await go(`${app}/connections?user=${user}`);
  return page.locator("tbody .pill").allTextContents();
}

for (const [device, options, first] of [
  ["a desktop", {}, 100],
  ["a phone in the dark", PHONE, 200],
]) {
  test(`what Anna wants revoked is revoked when Ben approves it, and not by herself, on ${device}`, async () => {
    const anna = await signIn(browser, "anna", options);
    const request = await asksToRevoke(anna, users(first));
    await accessible(anna.page);
    assert.equal(await anna.page.getByRole("link", { name: "Approve…" }).count(), 0);
    await anna.go(`${request}/approve`);
    assert.equal(await anna.page.getByRole("button", { name: "Approve and carry out" }).count(), 0);
    assert.equal(await send(anna.page, `${request}/approve`), 403);
    const before = await statuses(anna, `moved-${first}`);
    assert.ok(before.length >= 3 && before.every((status) => status === "active"), `${before}`);

    const ben = await signInByPasskey(browser, "ben", options);
    await ben.page.getByRole("link", { name: /^Wait for a second person [1-9]/ }).click();
    await accessible(ben.page);
    await ben.page.getByRole("link", { name: "Revoke many connections" }).first().click();
    assert.equal(new URL(ben.page.url()).pathname, request);
    await accessible(ben.page);
    const shown = await main(ben.page).textContent();
    for (const text of ["operator: anna", REASON, users(first).join(", "), "What it would do now"]) {
      assert.ok(shown.includes(text), `${text} is not in ${shown}`);
    }
    const matched = Number(await ben.page.locator("#dry ~ .lead data").getAttribute("value"));
    assert.ok(matched > 20, `${matched}`);
    assert.equal(await ben.page.locator("tbody tr").count(), 10, "the newest ten of them");
    const incident = await approve(ben, request);
    await accessible(ben.page);
    for (const user of [users(first).at(0), users(first).at(-1)]) {
      assert.ok(!(await statuses(ben, user)).includes("active"), user);
    }
    // It is an incident like any other, and decided once.
    await ben.go(incident);
    await ben.page.getByText("Live at the bank").click();
    await ben.page.getByRole("link", { name: /^ord_/ }).waitFor();
    await accessible(ben.page);
    assert.equal(await send(ben.page, `${request}/approve`), 409);
    await anna.go(request);
    await anna.page.getByText("approved by operator: ben").waitFor();
    await Promise.all([anna.context.close(), ben.context.close()]);
  });

  test(`a request that Anna has withdrawn meanwhile is not carried out, on ${device}`, async () => {
    const names = users(first + 20);
    const anna = await signIn(browser, "anna", options);
    const ben = await signInByPasskey(browser, "ben", options);
    const request = await asksToRevoke(anna, names);
    await ben.go(`${request}/approve`);
    await ben.page.getByRole("button", { name: "Approve and carry out" }).waitFor();
    await anna.page.getByRole("button", { name: "Withdraw it" }).click();
    await anna.page.getByText("withdrawn by operator: anna").waitFor();
    await ben.page.getByRole("button", { name: "Approve and carry out" }).click();
    await ben.page.getByText("Nothing was done: the request does not wait any more.").waitFor();
    await accessible(ben.page);
    const left = await statuses(ben, names[0]);
    assert.ok(left.length >= 3 && left.every((status) => status === "active"), `${left}`);
    await Promise.all([anna.context.close(), ben.context.close()]);
  });

  test(`an erasure is approved by somebody else, and its receipt holds where a forged one does not, on ${device}`, async () => {
    const name = `moved-${first + 40}`;
    const anna = await signIn(browser, "anna", options);
    await anna.go(`${anna.app}/connections?user=${name}`);
    await anna.page.getByRole("link", { name }).first().click();
    await anna.page.getByRole("heading", { name: "Person", level: 1 }).waitFor();
    const person = new URL(anna.page.url()).pathname;
    await accessible(anna.page);
    await anna.page.getByRole("link", { name: "Erase this person…" }).click();
    await anna.page.getByText("A second person has to approve this").waitFor();
    await accessible(anna.page);
    await anna.page.getByRole("button", { name: "Ask to erase this person" }).click();
    await anna.page.getByText("You asked for it: somebody else has to approve.").waitFor();
    const request = new URL(anna.page.url()).pathname;

    const ben = await signInByPasskey(browser, "ben", options);
    await ben.go(request);
    for (const text of [name, "What goes", "What stays"]) await main(ben.page).getByText(text).first().waitFor();
    await accessible(ben.page);
    await approve(ben, request);
    // The bank link is told first.
    for (let tries = 0; tries < 60; tries += 1) {
      await anna.go(person);
      if (await anna.page.getByRole("heading", { name: "Erased", exact: true }).count()) break;
      await anna.page.waitForTimeout(500);
    }
    await accessible(anna.page);
    assert.doesNotMatch(await main(anna.page).textContent(), new RegExp(name), "the name is gone");
    await receipts(anna);
    await Promise.all([anna.context.close(), ben.context.close()]);
  });
}

const encode = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
const decode = (part) => JSON.parse(Buffer.from(part, "base64url").toString());

// Signs as the service does, with a key of the test's own.
function signed(header, claims) {
  const kinds = { ES256: ["ec", { namedCurve: "P-256" }], RS256: ["rsa", { modulusLength: 2048 }], EdDSA: ["ed25519", {}] };
  const { privateKey } = generateKeyPairSync(...kinds[header.alg]);
  const content = `${encode(header)}.${encode(claims)}`;
  const key = { key: privateKey, dsaEncoding: "ieee-p1363" };
  const signature = sign(header.alg === "EdDSA" ? null : "sha256", Buffer.from(content), key);
  return `${content}.${signature.toString("base64url")}`;
}

// Checks the receipt on the page, and what is put in its place.
async function receipts({ page, go, app }) {
  const [person, field] = [page.url(), page.getByLabel(/JSON Web Signature/)];
  const jws = (await field.inputValue()).trim();
  const check = async (given, result) => {
    await field.fill(given);
    await page.getByRole("button", { name: "Verify it in this browser" }).click();
    await page.getByText(result).waitFor();
  };
  const [head, body, signature] = jws.split(".");
  const [header, claims] = [decode(head), decode(body)];
  await check(jws, `The signature holds: ${claims.sub} was erased at ${claims.erasedAt}, confirmed by the bank link.`);
  await accessible(page);
  const changed = encode({ ...claims, destroyed: { ...claims.destroyed, connections: 0 } });
  await check(`${head}.${changed}.${signature}`, "It does not hold: the signature is not by that key.");
  await check(signed(header, claims), "It does not hold: the signature is not by that key.");
  await check(signed({ ...header, kid: "forged" }, claims), "It could not be checked: no published key is forged");
  await check(`${encode({ ...header, alg: "none" })}.${body}.${signature}`, "It does not hold: nothing of this service’s is signed by none");
  await check(`${head}.${body}`, "It does not hold: this is no JSON Web Signature");
  await page.route("**/jwks.json", (route) => route.abort());
  await check(jws, "It could not be checked:");
  await page.unroute("**/jwks.json");
  // What the service has signed, and is no receipt.
  await go(`${app}/audit`);
  const checkpoint = await page.getByLabel("Checkpoint of this moment").inputValue();
  await page.goto(person);
  await check(checkpoint, "It does not hold: it is signed, and something else");
  await accessible(page);
}
