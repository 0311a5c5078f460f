// npm jose: what it verifies by the published keys, and what it refuses.
import assert from 'node:assert/strict';
import { base, done, form, id, scope, secret, verifyWithJose } from './support.mjs';

const metadata = await (await fetch(`${base}/.well-known/oauth-authorization-server`)).json();
const answer = await fetch(metadata.token_endpoint, {
  method: 'POST',
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
  body: form({ grant_type: 'client_credentials', client_id: id, client_secret: secret, scope }),
});
const { access_token: token } = await answer.json();
const claims = await verifyWithJose(token, metadata.jwks_uri);
for (const name of ['iss', 'exp', 'aud', 'sub', 'client_id', 'iat', 'jti', 'scope']) {
  assert.ok(claims[name], `RFC 9068 asks for ${name}`);
}
const [header, payload, signature] = token.split('.');
const first = signature[0] === 'A' ? 'B' : 'A';
await assert.rejects(verifyWithJose(`${header}.${payload}.${first}${signature.slice(1)}`, metadata.jwks_uri));
done('jose', 'verify');
