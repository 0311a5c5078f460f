// Signs in by a passkey, and adds one. The server decides everything; this only carries bytes.
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

async function post(path, body) {
  const token = document.querySelector("input[name=token]")?.value;
  const headers = { "content-type": "application/json", ...(token && { "x-console-token": token }) };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  if (!answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    throw new Error(page.querySelector("main p")?.textContent ?? `The answer was ${answer.status}.`);
  }
  return answer.status === 204 ? null : answer.json();
}

async function signIn(form) {
  const options = await post("/sign-in/passkey/begin");
  const publicKey = { ...options, challenge: bytes(options.challenge) };
  const { rawId, response } = await navigator.credentials.get({ publicKey });
  const { to } = await post("/sign-in/passkey", {
    id: text(rawId),
    clientData: text(response.clientDataJSON),
    authenticatorData: text(response.authenticatorData),
    signature: text(response.signature),
    userHandle: response.userHandle ? text(response.userHandle) : null,
    to: form.dataset.to,
  });
  const kept = form.dataset.then === "again" ? document.querySelector("form[data-again] button") : null;
  if (!kept) return location.assign(to);
  form.querySelector("[data-status]").textContent = "Proved. What you filled in can be sent now.";
  return kept.focus();
}

async function enrol(form) {
  const options = await post("/passkeys/begin");
  const publicKey = {
    ...options,
    challenge: bytes(options.challenge),
    user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: options.excludeCredentials.map((known) => ({ ...known, id: bytes(known.id) })),
  };
  const { response } = await navigator.credentials.create({ publicKey });
  await post("/passkeys/finish", {
    label: form.elements.label.value,
    clientData: text(response.clientDataJSON),
    authenticatorData: text(response.getAuthenticatorData()),
  });
  location.assign("/passkeys");
}

for (const [selector, act] of [["form[data-passkey]", signIn], ["form[data-enrol]", enrol]]) {
  const form = document.querySelector(selector);
  if (!form || !window.PublicKeyCredential) continue;
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const status = form.querySelector("[data-status]");
    status.textContent = "Waiting for your passkey…";
    try {
      await act(form);
    } catch (error) {
      const cancelled = error.name === "NotAllowedError";
      status.textContent = cancelled ? "Cancelled, or no passkey fits." : error.message;
    }
  });
}
