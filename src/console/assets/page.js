// Every page: times and numbers as the reader's locale has them, and the live part of a page.

const language = navigator.language;
// With the zone's name: forms take UTC.
const whole = new Intl.DateTimeFormat(language, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});
const number = new Intl.NumberFormat(language);
const relative = new Intl.RelativeTimeFormat(language, { style: "narrow", numeric: "always" });
const SILENT_FOR = 8000;
// How often the server is told at most that somebody is at this page.
const SEEN_EVERY = 60 * 1000;

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

// The server sends the live part when it changes, and a sign of life in between. That keeps no session alive; somebody who
// scrolls or types does.
const contact = document.querySelector("[data-live]");
const live = document.querySelector("#live");
if (contact && live) {
  follow(contact.dataset.live);
  let seen = Date.now();
  for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"]) {
    addEventListener(kind, () => {
      if (Date.now() - seen < SEEN_EVERY) return;
      seen = Date.now();
      fetch("/seen", { redirect: "manual" }).catch(() => {});
    }, { passive: true });
  }
}

// Follows what happens until the reader pauses it (WCAG 2.2.2), and from then on again.
function follow(url) {
  let stop = watch(url);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Pause updates";
  button.addEventListener("click", () => {
    if (stop) {
      stop();
      stop = null;
      say("paused", `Paused. What stands below was true at ${whole.format(new Date())}.`);
    } else {
      stop = watch(url);
    }
    button.textContent = stop ? "Pause updates" : "Follow again";
  });
  contact.after(button);
}

function say(state, text) {
  if (contact.dataset.state === state) return;
  contact.dataset.state = state;
  contact.textContent = text;
}

// Returns what stops it.
function watch(url) {
  const source = new EventSource(url);
  let last = Date.now();
  let stopped = false;
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
    if (Date.now() - last <= SILENT_FOR) return;
    const since = whole.format(new Date(last));
    say("lost", `Contact lost. What stands below was true at ${since}. Trying again.`);
    if (source.readyState === EventSource.CLOSED) {
      clearInterval(checking);
      setTimeout(again, 3000);
    }
  }, 1000);
  let stopNext = null;
  // The browser does not say why it was refused: a session that has ended leads to the sign-in.
  const again = async () => {
    const answer = await fetch(url, { redirect: "manual" }).catch(() => null);
    if (stopped) return;
    if (answer?.type === "opaqueredirect") {
      say("ended", "Your session has ended. Reload this page to sign in again.");
    } else {
      stopNext = watch(url);
    }
  };
  return () => {
    stopped = true;
    source.close();
    clearInterval(checking);
    stopNext?.();
  };
}

// What came while the reader has text selected in the live part; it is shown once they have not.
let held = null;
const selects = () => {
  const selection = getSelection();
  return !selection.isCollapsed && live?.contains(selection.anchorNode);
};
document.addEventListener("selectionchange", () => {
  if (held === null || selects()) return;
  const markup = held;
  held = null;
  show(markup);
});

// Replaces the live part, and keeps the focus and what was scrolled sideways where they were, if that is still there.
function show(markup) {
  if (selects()) {
    held = markup;
    return;
  }
  held = null;
  const same = (element) => {
    if (element.hasAttribute("href")) return `a[href="${CSS.escape(element.getAttribute("href"))}"]`;
    if (element.form) return `form[action="${CSS.escape(element.form.getAttribute("action"))}"] button`;
    return `[aria-label="${CSS.escape(element.getAttribute("aria-label") ?? "")}"]`;
  };
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
