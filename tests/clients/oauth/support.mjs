// What the clients for Node have in common.
import assert from 'node:assert/strict';
import { createRemoteJWKSet, jwtVerify } from 'jose';

export const [base, id, secret] = process.argv.slice(2);
export const resource = `${base}/v1/connections`;
export const scope = 'connections:read';

export const form = (values) => new URLSearchParams(values).toString();

/** The status of a call with this token, without any library. */
export async function status(token) {
  const answer = await fetch(resource, { headers: { authorization: `Bearer ${token}` } });
  return answer.status;
}

/** Whether the token counts, asked without any library. */
export async function active(token) {
  const answer = await fetch(`${base}/oauth2/introspect`, {
    method: 'POST',
    headers: {
      authorization: `Basic ${btoa(`${id}:${secret}`)}`,
      'content-type': 'application/x-www-form-urlencoded',
    },
    body: form({ token }),
  });
  assert.equal(answer.status, 200);
  return (await answer.json()).active;
}

/** Verifies a token with jose, by the key set that the server publishes (RFC 9068 §4). */
export async function verifyWithJose(token, jwksUri = `${base}/.well-known/jwks.json`) {
  const keys = createRemoteJWKSet(new URL(jwksUri));
  const { payload } = await jwtVerify(token, keys, {
    issuer: base,
    audience: base,
    typ: 'at+jwt',
    algorithms: ['ES256', 'RS256', 'EdDSA'],
  });
  assert.equal(payload.client_id, id);
  return payload;
}

export const done = (library, method) => console.log(`ok  ${library}  ${method}`);
