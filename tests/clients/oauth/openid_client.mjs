// npm openid-client: discovery, token, use, introspection, revocation; Basic and form.
import assert from 'node:assert/strict';
import * as client from 'openid-client';
import { base, done, id, resource, scope, secret, verifyWithJose } from './support.mjs';

for (const [method, authentication] of [
  ['client_secret_basic', client.ClientSecretBasic(secret)],
  ['client_secret_post', client.ClientSecretPost(secret)],
]) {
  const config = await client.discovery(new URL(base), id, undefined, authentication, {
    algorithm: 'oauth2',
    execute: [client.allowInsecureRequests],
  });
  assert.equal(config.serverMetadata().issuer, base);
  assert.ok(config.serverMetadata().token_endpoint_auth_methods_supported.includes(method));

  const tokens = await client.clientCredentialsGrant(config, { scope });
  assert.equal(tokens.token_type, 'bearer');
  assert.equal(tokens.scope, scope);
  const token = tokens.access_token;
  await verifyWithJose(token, config.serverMetadata().jwks_uri);

  const use = () => client.fetchProtectedResource(config, token, new URL(resource), 'GET');
  assert.equal((await use()).status, 200);
  assert.equal((await client.tokenIntrospection(config, token)).active, true);
  await client.tokenRevocation(config, token);
  assert.deepEqual(await client.tokenIntrospection(config, token), { active: false });
  await assert.rejects(use, (error) => error.status === 401 && error.cause[0].parameters.error === 'invalid_token');
  await assert.rejects(
    client.clientCredentialsGrant(config, { scope: 'no:such' }),
    (error) => error.error === 'invalid_scope',
  );
  done('openid-client', method);
}
