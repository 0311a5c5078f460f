// The demo page, as a newcomer uses it. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { connect, connected, demo, launch, link, open } from "./browser.mjs";

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

const inside = (page) => page.locator("#inside");
const steps = (page) => page.locator("#steps > li");

async function noSidewaysScroll(page, where) {
  const [wide, window] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    innerWidth,
  ]);
  assert.ok(wide <= window, `${where}: ${wide} in ${window}`);
}

// What is the same for both bank links is tested with both.
const LINKS = [
  { provider: "Dapi", connect: (page) => connect(page), token: /^ey/, hasUserSecret: true },
  { provider: "Plaid", connect: (page) => link(page), token: /^access-sandbox-/, hasUserSecret: false },
];

for (const { provider, connect, token, hasUserSecret } of LINKS) {
  test(`a bank is connected, its token revealed with a reason, and delinked, ${provider}`, async () => {
    const { page, quiet } = await open(browser);
    await connect(page);

    for (const name of ["Code received", "Exchanged", "Sealed", "Active"]) {
      assert.match(await steps(page).filter({ hasText: name }).first().getAttribute("class"), /done/);
    }
    await steps(page).filter({ hasText: `${provider} gave the permanent token` }).waitFor();
    const sealed = (await page.locator(".sealed pre").textContent()).replaceAll(" ", "");
    assert.match(sealed, /^02[0-9a-f]{150,}$/);
    const key = await page.locator(".sealed figcaption code").nth(1).textContent();
    assert.equal(sealed.slice(2, 34), key.replaceAll("-", ""));

    await page.getByRole("button", { name: "Read the accounts" }).click();
    await page.locator("#accounts-list li").first().waitFor();
    await page.getByText(`called ${provider} and passed the answer on`).waitFor();

    await page.getByRole("button", { name: "Reveal the token" }).click();
    await page.getByLabel("Why is it read?").fill("a test looks");
    await page.getByRole("button", { name: "Reveal", exact: true }).click();
    await page.locator("#revealed").waitFor();
    const revealed = await page.locator("#access-token").textContent();
    assert.match(revealed, token);
    assert.ok(!Buffer.from(sealed, "hex").includes(revealed), "the token lies in the clear");
    assert.equal(await page.getByText("userSecret").isVisible(), hasUserSecret);
    await page.locator("#events").getByText("a test looks").waitFor();
    await page.getByRole("button", { name: "Hide it again" }).click();
    assert.equal(await page.locator("#access-token").textContent(), "");

    await page.getByRole("button", { name: "Delink", exact: true }).click();
    await page.locator("#pill.delinked").waitFor();
    await steps(page).filter({ hasText: `${provider} confirmed it` }).waitFor();
    assert.equal(await page.locator(".sealed").count(), 0);
    assert.ok(await page.locator("#accounts").isHidden());
    assert.ok(await page.getByRole("button", { name: "Reveal the token" }).isHidden());
    await quiet();
  });
}

test("a login of Dapi's is called by its bank", async () => {
  const { page, quiet } = await open(browser);
  await connect(page, /Lumen/);
  await page.getByRole("heading", { name: "Lumen & Tide" }).waitFor();
  await page.locator("#rows button[aria-current]").getByText("Lumen & Tide").waitFor();
  await quiet();
});

test("an empty reason is refused beside its field, and nothing is revealed", async () => {
  const { page, quiet } = await open(browser);
  await connect(page);
  await page.getByRole("button", { name: "Reveal the token" }).click();
  await page.getByLabel("Why is it read?").fill(" ");
  await page.getByRole("button", { name: "Reveal", exact: true }).click();
  await page.locator("#reason-problem").getByText("Type a reason").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "reason");
  assert.ok(await page.locator("#revealed").isHidden());
  await page.getByLabel("Why is it read?").fill("a test looks");
  await page.getByRole("button", { name: "Reveal", exact: true }).click();
  await page.locator("#revealed").waitFor();
  await quiet();
});

test("Connect closes by one button, and a refused login is tried again at the same bank", async () => {
  const { page, quiet } = await open(browser);
  await page.getByRole("button", { name: "Connect your bank" }).click();
  const frame = page.frameLocator("#frame");
  await frame.getByRole("button", { name: /Orrery/ }).click();
  await page.getByRole("button", { name: "Close", exact: true }).waitFor({ state: "hidden" });
  await frame.getByLabel("User name").fill("denied");
  await frame.getByRole("button", { name: "Log in" }).click();
  await frame.getByRole("button", { name: "Try again" }).click();
  await frame.getByRole("heading", { name: "Log in at Orrery Savings" }).waitFor();
  await frame.getByRole("button", { name: "Close without connecting" }).click();
  await page.locator("dialog").waitFor({ state: "hidden" });
  await quiet();
});

test("the sandbox's front page has a title and leads to Connect", async () => {
  const { page, quiet } = await open(browser, {}, process.env.SANDBOX_URL);
  assert.equal(await page.title(), "Strongroom’s sandbox");
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
  await page.getByRole("link", { name: "Link a bank in Connect" }).click();
  await page.getByRole("heading", { name: "Choose your bank" }).waitFor();
  await quiet();
});

test("Plaid's institution and accounts are shown, and a second link of them is told", async () => {
  const { page, quiet } = await open(browser);
  const linked = page.locator("#linked-list");
  await link(page, /Houndstooth/, "bea");
  await page.getByRole("heading", { name: "Houndstooth Bank" }).waitFor();
  await linked.getByText("Houndstooth Bank").waitFor();
  await linked.getByText(/depository ····/).first().waitFor();
  assert.ok(await page.locator("#duplicate").isHidden());
  const first = await page.locator("#rows button[aria-current]").getAttribute("data-id");

  await link(page, /Houndstooth/, "bea");
  await page.getByText("The same accounts were connected before.").waitFor();
  await page.getByRole("button", { name: "Show that connection" }).click();
  await page.locator(`#rows button[aria-current][data-id="${first}"]`).waitFor();
  await page.locator("#duplicate").waitFor({ state: "hidden" });
  await quiet();
});

test("the page never holds client credentials or an access token of Strongroom's", async () => {
  const { page, quiet } = await open(browser);
  const secrets = /oauth2|sandbox-plaid-secret|sandbox-app-secret|access-sandbox-/;
  const bearers = new Set();
  page.on("request", (request) => {
    assert.doesNotMatch(`${request.url()} ${request.postData()}`, secrets);
    const bearer = request.headers().authorization;
    if (bearer) bearers.add(`${new URL(request.url()).pathname} ${bearer.slice(0, 10)}`);
  });
  await connect(page);
  await link(page);
  const [bearer, ...others] = bearers;
  assert.match(bearer, /^\/v1\/connections Bearer /);
  assert.doesNotMatch(bearer, /Bearer ey/, "a session is no JWT");
  assert.deepEqual(others, []);
  assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
  await quiet();
});

test("a result counts only from Connect's own frame", async () => {
  const { page, quiet } = await open(browser);
  await page.evaluate(() => {
    for (const source of ["dapi-sandbox-connect", "plaid-sandbox-link"]) {
      const result = { success: true, accessCode: "forged", public_token: "forged" };
      postMessage({ source, event: "success", result }, location.origin);
    }
  });
  const handedIn = page.waitForRequest(/\/v1\/connections/, { timeout: 500 });
  await assert.rejects(handedIn);
  await quiet();
});

test("the keyboard alone leads through everything", async () => {
  const { page, quiet } = await open(browser);
  const focused = () => page.evaluate(() => document.activeElement.id);
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  const tabTo = async (id) => {
    for (let presses = 0; (await focused()) !== id; presses += 1) {
      assert.ok(presses < 40, `Tab does not lead to ${id}`);
      await press("Tab");
    }
  };

  await tabTo("connect");
  await press("Enter");
  const frame = page.frameLocator("#frame");
  await frame.getByRole("heading", { name: "Choose your bank" }).waitFor();
  await page.waitForFunction(() => document.activeElement.id === "frame");
  const inFrame = () => 
    page.frames()[1].evaluate(() => {
      const { dataset, id } = document.activeElement;
      return dataset.bank || id;
    });
  for (let presses = 0; (await inFrame()) !== "orrery"; presses += 1) {
    assert.ok(presses < 10, "Tab does not lead to the bank");
    await press("Tab");
  }
  await press("Enter");
  await frame.getByRole("heading", { name: /Orrery/ }).waitFor();
  for (let presses = 0; (await inFrame()) !== "password"; presses += 1) {
    assert.ok(presses < 10, "Tab does not lead to the password");
    await press("Tab");
  }
  await press("Enter");
  await frame.getByLabel("Six-digit code").waitFor();
  await page.keyboard.type("123456");
  await press("Enter");

  await connected(page);
  assert.equal(await focused(), "inside-title");
  await tabTo("reveal");
  await press("Enter");
  assert.equal(await focused(), "reason");
  await press("Enter");
  await page.waitForFunction(() => document.activeElement.id === "revealed-title");
  await tabTo("hide");
  await press("Enter");
  assert.equal(await focused(), "reveal");
  await tabTo("delink");
  await press("Enter");
  await page.locator("#pill.delinked").waitFor();
  await page.waitForFunction(() => document.activeElement.id === "inside-title");
  await quiet();
});

for (const name of ["Dapi’s Connect", "Plaid’s Link"]) {
  test(`leaving ${name} gives the focus back and connects nothing`, async () => {
    const { page, quiet } = await open(browser);
    await page.getByRole("radio", { name }).check();
    await page.getByRole("button", { name: "Connect your bank" }).click();
    const frame = page.frameLocator("#frame");
    await frame.getByRole("button", { name: "Close without connecting" }).click();
    await page.locator("dialog").waitFor({ state: "hidden" });
    assert.equal(await page.evaluate(() => document.activeElement.id), "connect");
    assert.equal(await page.locator("#status").textContent(), "Nothing was connected.");
    await quiet();
  });
}

test("a phone shows it all without scrolling sideways", async () => {
  const { page, quiet } = await open(browser, {
    viewport: { width: 320, height: 640 },
    isMobile: true,
    hasTouch: true,
  });
  await noSidewaysScroll(page, "at the start");
  await page.getByRole("button", { name: "Connect your bank" }).click();
  await page.frameLocator("#frame").getByRole("heading", { name: "Choose your bank" }).waitFor();
  await noSidewaysScroll(page, "in Connect");
  await page.frameLocator("#frame").getByRole("button", { name: "Close without connecting" }).click();
  await connect(page, /Quince/);
  await noSidewaysScroll(page, "connected");
  await page.getByRole("button", { name: "Reveal the token" }).click();
  await page.getByRole("button", { name: "Reveal", exact: true }).click();
  await page.locator("#revealed").waitFor();
  await noSidewaysScroll(page, "revealed");
  await link(page, /Tattersall/);
  await page.getByRole("button", { name: "Read the accounts" }).click();
  await page.locator("#accounts-list li").first().waitFor();
  await noSidewaysScroll(page, "accounts read");
  await quiet();
});

const LOOKS = ["light", "dark"].flatMap((colorScheme) =>
  LINKS.map((each) => ({ colorScheme, ...each })),
);
for (const { colorScheme, provider, connect } of LOOKS) {
  test(`nothing stands in the way of a screen reader or of weak eyes, ${provider}, ${colorScheme}`, async () => {
    const { page, quiet } = await open(browser, { colorScheme, reducedMotion: "reduce" });
    // The second of Plaid's is a duplicate, which is told as well.
    for (const _ of ["first", "second"]) await connect(page);
    await page.getByRole("button", { name: "Read the accounts" }).click();
    await page.locator("#accounts-list li").first().waitFor();
    await page.getByRole("button", { name: "Reveal the token" }).click();
    await page.getByRole("button", { name: "Reveal", exact: true }).click();
    await page.locator("#revealed").waitFor();
    await page.evaluate(axe.source);
    const complaints = async () => {
      const { violations } = await page.evaluate(() =>
        window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
      );
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
    };
    assert.deepEqual(await complaints(), []);
    await page.getByRole("button", { name: "Delink", exact: true }).click();
    await page.locator("#pill.delinked").waitFor();
    assert.deepEqual(await complaints(), []);
    await quiet();
  });
}

test("what cannot be reached is told", async () => {
  const { page, context } = await open(browser);
  await page.locator("#rows button").first().waitFor();
  await context.setOffline(true);
  await page.getByRole("button", { name: "Connect your bank" }).click();
  await page.getByRole("alert").filter({ hasText: "cannot be reached" }).waitFor();
  await context.setOffline(false);
  await page.getByRole("button", { name: "Connect your bank" }).click();
  await page.frameLocator("#frame").getByRole("heading", { name: "Choose your bank" }).waitFor();
  assert.ok(await page.getByRole("alert").isHidden());
  await context.close();
});

test("a code expires while Dapi answers 503, and is wiped", { timeout: 120_000 }, async () => {
  const { page, quiet } = await open(browser);
  await page.getByRole("button", { name: "Issue a code that expires" }).click();
  await page.locator("#pill.pending").waitFor();
  await inside(page).getByText("connections.code,").waitFor();
  const phase = (text) => page.locator("#phase").getByText(text);
  await phase("of the code’s own life are left").waitFor();
  await phase("more: clocks differ").waitFor();
  await page.locator("#pill.expired").waitFor({ timeout: 90_000 });
  await phase("It is expired: the code is wiped").waitFor();
  await steps(page).filter({ hasText: "Expired" }).waitFor();
  assert.equal(await page.locator(".sealed").count(), 0);
  await quiet();
});

test("a page of another origin gets nothing from the backend", async () => {
  const { context } = await open(browser);
  const other = await context.newPage();
  await other.goto(process.env.SANDBOX_URL);
  const reached = await other.evaluate(
    (url) => fetch(`${url}/api/session`, { method: "POST" }).then(() => true, () => false),
    demo,
  );
  assert.equal(reached, false);
  await context.close();
});
