// What Connect's page and Link's have in common: steps, complaints, and handing over the result, which
// goes to the page that opened or framed this one, at the origin named in the query and no other.

const FAILING_USERNAME = "denied";
const LEAVING_USERNAME = "cancel";
// How long a popup shows that it worked before it closes itself.
const SHOW_SUCCESS_MILLIS = 1200;

export const query = new URLSearchParams(location.search);
export const byId = (id) => document.getElementById(id);

export function say(text) {
  byId("status").textContent = text;
}

export function complain(field, text) {
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

// An opener wins over a parent: a popup has no parent frame.
function listener() {
  if (!query.get("origin")) return null;
  if (window.opener) return window.opener;
  return window.parent === window ? null : window.parent;
}

// Runs a page. `source` names it in its messages, `steps` are its sections in their order, `before` says
// which step a step goes back to, `ready` is what it says to a user whom no page waits for.
export function page({ source, steps, before, ready }) {
  let step = steps[0];
  let finished = false;
  // The button of the bank that was chosen.
  let choice = null;

  function report(event, result) {
    const target = listener();
    if (!target) return false;
    target.postMessage({ source, event, result }, query.get("origin"));
    return true;
  }

  function show(next, focus = true) {
    step = next;
    document.querySelectorAll("main > section").forEach((section) => {
      section.hidden = section.id !== next;
    });
    // A failed user stays as far as they came.
    if (next !== "done" || !byId("done").classList.contains("failed")) {
      const reached = steps.indexOf(next);
      document.querySelectorAll(".steps li").forEach((mark, place) => {
        mark.classList.toggle("past", place <= reached);
      });
    }
    byId("back").hidden = !before[next];
    byId("exit").hidden = finished;
    if (focus) byId(`${next}-title`).focus();
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
      text: delivered ? "You can go back to the app now." : ready,
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
    const button = form.querySelector("button.main");
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

  // Calls `work(username, refused)` when the user logs in; `refused` if the bank will not have them.
  function onLogin(work) {
    byId("login-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const { username, password } = event.target.elements;
      complain(username, "");
      complain(password, "");
      if (!username.value.trim()) return complain(username, "Type a user name.");
      if (!password.value) return complain(password, "Type a password.");
      const name = username.value.trim();
      if (name === LEAVING_USERNAME) return leave();
      say("Logging in");
      busy(event.target, () => work(name, name === FAILING_USERNAME));
    });
  }

  // Calls `choose(button)` when the user chooses a bank; moves on to the login.
  function onBank(choose) {
    byId("banks").addEventListener("click", (event) => {
      const button = event.target.closest("button[data-bank]");
      if (!button) return;
      choice = button;
      choose(button.dataset.bank);
      nameBank(button.querySelector("strong").textContent);
      show("login");
    });
  }

  function nameBank(name) {
    document.querySelectorAll("[data-bank-name]").forEach((place) => {
      place.textContent = name;
    });
  }

  byId("back").addEventListener("click", () => {
    show(before[step]);
    if (step === "banks") choice.focus();
  });
  byId("exit").addEventListener("click", leave);

  // A user who failed at their bank tries again there; one who left starts anew.
  byId("retry").addEventListener("click", () => {
    const again = choice && !finished ? "login" : steps[0];
    finished = false;
    show(again);
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

  document.querySelectorAll(".steps li").forEach((mark) => {
    if (!steps.includes(mark.dataset.step)) mark.remove();
  });
  show(steps[0], false);
  return { show, succeed, fail, busy, onBank, onLogin, nameBank };
}

// Calls the sandbox's control API.
export async function control(path, body) {
  const options = body && {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const result = await response.json();
  if (!response.ok) throw new Error(result.detail);
  return result;
}
