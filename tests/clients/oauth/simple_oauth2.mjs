// npm simple-oauth2: token, use, revocation; Basic loose and strict, form, JSON. It knows neither
// introspection nor metadata.
import assert from 'node:assert/strict';
import { ClientCredentials } from 'simple-oauth2';
import { active, base, done, id, scope, secret, status, verifyWithJose } from './support.mjs';

for (const [method, options] of [
  ['Basic, loose', { authorizationMethod: 'header', credentialsEncodingMode: 'loose' }],
  ['Basic, strict', { authorizationMethod: 'header', credentialsEncodingMode: 'strict' }],
  ['Basic, JSON', { authorizationMethod: 'header', bodyFormat: 'json' }],
  ['form', { authorizationMethod: 'body', bodyFormat: 'form' }],
  ['JSON', { authorizationMethod: 'body', bodyFormat: 'json' }],
]) {
  const client = new ClientCredentials({
    client: { id, secret },
    auth: { tokenHost: base, tokenPath: '/oauth2/token', revokePath: '/oauth2/revoke' },
    options,
  });
  const got = await client.getToken({ scope });
  assert.equal(got.token.scope, scope);
  assert.equal(got.expired(), false);
  const token = got.token.access_token;
  await verifyWithJose(token);
  assert.equal(await status(token), 200);
  assert.equal(await active(token), true);
  await got.revoke('access_token');
  assert.equal(await active(token), false);
  assert.equal(await status(token), 401);
  await assert.rejects(client.getToken({ scope: 'no:such' }), (error) => {
    return error.output.statusCode === 400 && error.data.payload.error === 'invalid_scope';
  });
  done('simple-oauth2', method);
}
