// Every page: times and numbers as the reader's locale has them, and the live part of a page.

const language = navigator.language;
const whole = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
const number = new Intl.NumberFormat(language);
const relative = new Intl.RelativeTimeFormat(language, { style: "narrow", numeric: "always" });
// Beyond this the browser that nobody touches lets the session go idle.
const WATCHED_FOR = 25 * 60 * 1000;
const SILENT_FOR = 8000;

function span(seconds) {
  const size = Math.abs(seconds);
  if (size < 60) return [Math.round(seconds), "second"];
  if (size < 3600) return [Math.trunc(seconds / 60), "minute"];
  if (size < 172800) return [Math.trunc(seconds / 3600), "hour"];
  return [Math.trunc(seconds / 86400), "day"];
}

function word(time) {
  const at = new Date(time.dateTime);
  const left = (at - Date.now()) / 1000;
  if ("countdown" in time.dataset) return left < 0 ? "over" : relative.format(...span(left));
  if ("relative" in time.dataset) return relative.format(...span(left));
  return whole.format(at);
}

function localize(root) {
  for (const time of root.querySelectorAll("time")) time.textContent = word(time);
  for (const data of root.querySelectorAll("data")) data.textContent = number.format(data.value);
}

localize(document);
setInterval(() => {
  for (const time of document.querySelectorAll("time[data-relative], time[data-countdown]")) {
    const text = word(time);
    if (time.textContent !== text) time.textContent = text;
  }
}, 1000);

// The server sends the live part when it changes, and a sign of life in between.
const contact = document.querySelector("[data-live]");
const live = document.querySelector("#live");
if (contact && live) watch(contact.dataset.live);

function watch(url) {
  const source = new EventSource(url);
  let last = Date.now();
  let touched = Date.now();
  for (const kind of ["pointerdown", "keydown", "scroll"]) {
    addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  }
  const say = (state, text) => {
    if (contact.dataset.state === state) return;
    contact.dataset.state = state;
    contact.textContent = text;
  };
  const heard = () => {
    last = Date.now();
    say("live", "Live: this page follows what happens.");
  };
  source.addEventListener("alive", heard);
  source.addEventListener("page", (event) => {
    heard();
    show(event.data);
  });
  const checking = setInterval(() => {
    if (Date.now() - touched > WATCHED_FOR) {
      source.close();
      clearInterval(checking);
      say("stopped", "Stopped, because nobody touched this page for a while. Reload it to go on.");
    } else if (Date.now() - last > SILENT_FOR) {
      const since = whole.format(new Date(last));
      say("lost", `Contact lost. What stands below was true at ${since}. Trying again.`);
      if (source.readyState === EventSource.CLOSED) {
        clearInterval(checking);
        setTimeout(again, 3000);
      }
    }
  }, 1000);
  // The browser does not say why it was refused: a session that has ended leads to the sign-in.
  const again = async () => {
    const answer = await fetch(url, { redirect: "manual" }).catch(() => null);
    if (answer?.type !== "opaqueredirect") return watch(url);
    return say("ended", "Your session has ended. Reload this page to sign in again.");
  };
}

// Replaces the live part, and keeps the focus and what was scrolled sideways where they were, if that is still there.
function show(markup) {
  const same = (element) => (element.hasAttribute("href")
    ? `a[href="${CSS.escape(element.getAttribute("href"))}"]`
    : `[aria-label="${CSS.escape(element.getAttribute("aria-label") ?? "")}"]`);
  const focused = live.contains(document.activeElement) ? same(document.activeElement) : null;
  const scrolled = [...live.querySelectorAll(".scroll")].map((it) => [same(it), it.scrollLeft]);
  live.innerHTML = markup;
  localize(live);
  if (focused) live.querySelector(focused)?.focus({ preventScroll: true });
  for (const [selector, left] of scrolled) live.querySelector(selector)?.scrollTo({ left, behavior: "instant" });
}

// A form says that it was sent, and is sent once: to count what an incident matches takes a moment.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post") return;
  if (form.ariaBusy === "true") {
    event.preventDefault();
    return;
  }
  form.ariaBusy = "true";
  const status = document.createElement("p");
  status.role = "status";
  status.className = "soft";
  status.dataset.sent = "";
  form.append(status);
  setTimeout(() => { status.textContent = "Sent. Waiting for the answer…"; }, 500);
});
// The page as the browser kept it when its form led on.
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[aria-busy]")) form.ariaBusy = null;
  for (const status of document.querySelectorAll("[data-sent]")) status.remove();
});
