// The sign-in to the console at npm oidc-provider. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, open } from "./browser.mjs";

const origin = new URL(process.env.SIGN_IN_URL).origin;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

// Opens a page of the console, which leads to the provider, and logs in there.
async function logIn(name, path = "/") {
  const { page, context } = await open(browser, {}, `${origin}${path}`);
  await page.getByRole("link", { name: "Sign in with your organisation" }).click();
  await page.getByPlaceholder("Enter any login").fill(name);
  await page.getByPlaceholder("and password").fill("anything");
  await page.getByRole("button", { name: "Sign-in" }).click();
  return { page, context };
}

async function agree(page) {
  await page.getByRole("button", { name: "Continue" }).click();
}

test("a person whose group has a role signs in with it, and gets to the page that was asked for", async () => {
  const { page, context } = await logIn("ana", "/to/keys");
  await agree(page);
  // There is an app of Dapi's and one of Plaid's.
  await page.getByRole("heading", { name: "Apps" }).waitFor();
  await page.locator("main a").first().click();
  await page.getByRole("heading", { name: "Keys", level: 1 }).waitFor();
  await page.getByText("ana, admin").waitFor();
  await context.close();
});

test("another group has another role", async () => {
  const { page, context } = await logIn("sam");
  await agree(page);
  await page.getByText("sam, operator").waitFor();
  await context.close();
});

test("a person without a role is refused, and no session begins", async () => {
  const { page, context } = await logIn("eve");
  await agree(page);
  await page.getByText("The provider gives you none of the roles").waitFor();
  const cookies = await context.cookies(origin);
  assert.ok(!cookies.some(({ value }) => value.includes("osess_")));
  await context.close();
});

test("a person who gives up at the provider is told so", async () => {
  const { page, context } = await open(browser, {}, `${origin}/`);
  await page.getByRole("link", { name: "Sign in with your organisation" }).click();
  await page.getByRole("link", { name: "[ Cancel ]" }).click();
  await page.getByText("The provider did not sign you in.").waitFor();
  await context.close();
});

test("an answer of the provider's counts once and in the browser that asked for it", async () => {
  const { page, context } = await logIn("ana");
  const answered = page.waitForRequest((request) => request.url().includes("/sign-in/oidc/callback?"));
  await agree(page);
  const callback = (await answered).url();
  await page.getByText("ana, admin").waitFor();
  await page.goto(callback);
  await page.getByText("The sign-in is refused").first().waitFor();
  const other = await open(browser, {}, callback);
  await other.page.getByText("begun in another browser").waitFor();
  await other.context.close();
  await context.close();
});
