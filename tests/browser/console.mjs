// A signed-in browser at the console: the link is used once, and every page of a test has the session's cookie.
import { open } from "./browser.mjs";

const link = process.env.SCREENS_SIGN_IN_URL;
const origin = new URL(link).origin;
let session;

// Opens Now of the only app, or of the first.
export async function signedIn(browser, options = {}) {
  if (!session) {
    const { page, context } = await open(browser, {}, link);
    await page.waitForURL((url) => !url.pathname.startsWith("/sign-in"));
    session = await context.storageState();
    await context.close();
  }
  const opened = await open(browser, { storageState: session, reducedMotion: "reduce", ...options }, origin);
  const { page } = opened;
  if (new URL(page.url()).pathname === "/") await page.locator("main a").first().click();
  await page.getByRole("heading", { name: "Now", level: 1 }).waitFor();
  const go = (path) => page.goto(new URL(path, origin).href);
  return { ...opened, go };
}
