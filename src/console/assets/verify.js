// Checks in the reader's browser: the chain of the trail, a checkpoint that was kept, a receipt. The algorithms are those of
// docs/audit.md; nothing of the server's own arithmetic is used.

const DOMAIN = "strongroom audit link";
// The `typ` of what is signed (RFC 7515 §4.1.9): one is never taken for the other.
const CHECKPOINT = "strongroom-audit-checkpoint+jwt";
const RECEIPT = "erasure-receipt+jwt";
const utf8 = new TextEncoder();

// One field: its length in four bytes, big-endian, and its bytes. An absent field is 2^32-1 and nothing.
function field(bytes) {
  const head = new DataView(new ArrayBuffer(4));
  head.setUint32(0, bytes === null ? 0xffffffff : bytes.length);
  return bytes === null ? [new Uint8Array(head.buffer)] : [new Uint8Array(head.buffer), bytes];
}

function integer(value, size) {
  const view = new DataView(new ArrayBuffer(size));
  if (size === 8) view.setBigInt64(0, BigInt(value));
  else view.setInt16(0, value);
  return new Uint8Array(view.buffer);
}

const text = (value) => (value === null || value === undefined ? null : utf8.encode(value));
const unhex = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
// An id without its prefix and hyphens.
const uuid = (id) => (id ? unhex(id.slice(id.indexOf("_") + 1).replaceAll("-", "")) : null);

// Microseconds since 1970, exactly: a Date has milliseconds only.
function micros(at) {
  const [, seconds, fraction = "", zone] = at.match(/^(.*?\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/);
  return BigInt(Date.parse(seconds + zone)) * 1000n + BigInt(fraction.padEnd(6, "0").slice(0, 6));
}

export async function link(app, seq, before, version, event) {
  const parts = [
    text(DOMAIN), integer(version, 2), uuid(app), integer(seq, 8), before,
    uuid(event.id), integer(micros(event.at), 8), text(event.action), text(event.outcome), text(event.actor),
    text(event.clientID), uuid(event.sessionID), text(event.scope), text(event.ip), uuid(event.requestID),
    uuid(event.user), uuid(event.connection), text(event.reason),
  ].flatMap(field);
  const whole = new Uint8Array(await new Blob(parts).arrayBuffer());
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

const base64url = (value) =>
  Uint8Array.from(atob(value.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

// What was checked and does not hold. Every other error means that it could not be checked.
class Refuted extends Error {}

// Reads from the console. A session that has ended leads to the sign-in instead.
async function read(url) {
  const answer = await fetch(url);
  if (!answer.ok || answer.redirected) throw new Error("the console does not answer; sign in again, or try again in a moment");
  return answer.json();
}

// The parts of a JSON Web Signature in its compact form (RFC 7515 §7.1).
function parse(jws) {
  const [head, body, signature, ...more] = jws.trim().split(".");
  const json = (part) => JSON.parse(new TextDecoder().decode(base64url(part)));
  try {
    const [header, claims] = [json(head), json(body)];
    const signed = utf8.encode(`${head}.${body}`);
    if (header.alg && claims.sub && more.length === 0) return { header, claims, signature: base64url(signature), signed };
  } catch {
    // It is none.
  }
  throw new Refuted("this is no JSON Web Signature of this service’s");
}

const ALGORITHMS = {
  ES256: [{ name: "ECDSA", namedCurve: "P-256" }, { name: "ECDSA", hash: "SHA-256" }],
  RS256: [{ name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, { name: "RSASSA-PKCS1-v1_5" }],
  EdDSA: [{ name: "Ed25519" }, { name: "Ed25519" }],
};

// Returns the claims of a JSON Web Signature of this type if one of the published keys made it.
async function claims(jws, type, keysAt) {
  const { header, claims, signature, signed } = parse(jws);
  const { alg, kid, typ } = header;
  const { keys } = await read(keysAt);
  const jwk = keys.find((key) => key.kid === kid && key.alg === alg);
  if (!Object.hasOwn(ALGORITHMS, alg)) throw new Refuted(`nothing of this service’s is signed by ${alg}`);
  // Keys are published for as long as a token of theirs may live: what was signed a year ago is not forged for that.
  if (!jwk) throw new Error(`no published key is ${kid}: it has been replaced since, or it was never this service’s. docs/audit.md says how to check with a key set that you kept`);
  const [importing, verifying] = ALGORITHMS[alg];
  const key = await crypto.subtle.importKey("jwk", jwk, importing, false, ["verify"]);
  if (!(await crypto.subtle.verify(verifying, key, signature, signed))) throw new Refuted("the signature is not by that key");
  if (typ !== type) throw new Refuted(`it is signed, and something else: ${typ}`);
  return claims;
}

// Follows the chain from its first link. Returns what was found, or throws at the first link that does not hold. If the
// beginning is not here, as after an archive, the links after a gap are followed from the first of them on, and counted as
// missing; whether a gap is an archive is for `strongroom audit verify`, which knows the signed statements.
async function follow(app, url, point, progress) {
  let seq = 0;
  let hash = new Uint8Array(32);
  let missing = 0;
  for (;;) {
    const links = await read(`${url}?after=${seq}`);
    for (const each of links) {
      const gap = each.seq - seq - 1;
      if (gap > 0 && seq > 0 && missing === 0) throw new Refuted(`link ${seq + 1} is missing`);
      if (!each.event) throw new Refuted(`the row of link ${each.seq} was removed`);
      missing += gap;
      const computed = gap > 0 ? unhex(each.hash) : await link(app, each.seq, hash, each.version, each.event);
      if (hex(computed) !== each.hash) throw new Refuted(`link ${each.seq} does not follow: its row or link was changed`);
      if (point && point.seq === each.seq && point.hash !== each.hash) {
        throw new Refuted(`link ${each.seq} is not the checkpoint’s: the chain was rewritten as a whole`);
      }
      [seq, hash] = [each.seq, computed];
    }
    progress(seq);
    if (links.length === 0) break;
  }
  if (point && point.seq > seq) throw new Refuted(`the checkpoint has ${point.seq} links, the chain ${seq}: its end was cut off`);
  return { seq, hash: hex(hash), missing };
}

function tell(section, state, words) {
  const result = section.querySelector("[data-result]");
  result.dataset.state = state;
  result.textContent = words;
}

async function verifyChain(section) {
  const { app, chain, keys } = section.dataset;
  const bar = section.querySelector("[data-progress]");
  bar.hidden = false;
  const kept = section.querySelector("[data-kept]").value.trim();
  const point = kept ? await claims(kept, CHECKPOINT, keys) : null;
  if (point && point.sub !== app) throw new Refuted("the checkpoint is of another app");
  const found = await follow(app, chain, point, (seq) => { bar.value = seq; });
  if (found.missing > 0) {
    throw new Error(`${found.missing} of ${found.seq} links are not in the database, which is so after an archive; all others follow each other. \`strongroom audit verify\` checks across archives`);
  }
  const compared = point ? ` The checkpoint of link ${point.seq} agrees.` : "";
  return `Every link holds: ${found.seq}, the last is ${found.hash}.${compared}`;
}

async function verifyReceipt(section) {
  const { keys, user } = section.dataset;
  const receipt = await claims(section.querySelector(".jws").value, RECEIPT, keys);
  if (receipt.sub !== user) throw new Refuted(`it is about another person, ${receipt.sub}`);
  return `The signature holds: ${receipt.sub} was erased at ${receipt.erasedAt}, ${receipt.upstream} by the bank link.`;
}

for (const section of document.querySelectorAll("[data-chain], [data-receipt]")) {
  const button = section.querySelector("[data-verify]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    tell(section, "working", "Checking…");
    try {
      tell(section, "good", await ("chain" in section.dataset ? verifyChain : verifyReceipt)(section));
    } catch (error) {
      if (error instanceof Refuted) tell(section, "bad", `It does not hold: ${error.message}.`);
      else tell(section, "unknown", `It could not be checked: ${error.message}.`);
    }
    button.disabled = false;
  });
}
