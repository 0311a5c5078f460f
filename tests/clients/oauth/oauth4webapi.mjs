// npm oauth4webapi: discovery, token, RFC 9068 validation, use, introspection, revocation; Basic and form.
import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';
import { base, done, id, resource, scope, secret } from './support.mjs';

const http = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(base);
const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...http });
const server = await oauth.processDiscoveryResponse(issuer, found);
const client = { client_id: id };

for (const [method, authentication] of [
  ['client_secret_basic', oauth.ClientSecretBasic(secret)],
  ['client_secret_post', oauth.ClientSecretPost(secret)],
]) {
  const ask = async (parameters) =>
    oauth.processClientCredentialsResponse(
      server,
      client,
      await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, http),
    );
  const { access_token: token, expires_in: lifetime } = await ask({ scope });
  assert.equal(lifetime, 3600);

  const request = new Request(resource, { headers: { authorization: `Bearer ${token}` } });
  const claims = await oauth.validateJwtAccessToken(server, request, base, http);
  assert.equal(claims.scope, scope);

  const use = () => oauth.protectedResourceRequest(token, 'GET', new URL(resource), undefined, undefined, http);
  assert.equal((await use()).status, 200);
  const introspect = async () =>
    oauth.processIntrospectionResponse(
      server,
      client,
      await oauth.introspectionRequest(server, client, authentication, token, http),
    );
  assert.equal((await introspect()).client_id, id);
  const revoked = await oauth.revocationRequest(server, client, authentication, token, http);
  assert.equal(await oauth.processRevocationResponse(revoked), undefined);
  assert.deepEqual(await introspect(), { active: false });
  await assert.rejects(use, (error) => error.status === 401);
  await assert.rejects(ask({ scope: 'no:such' }), (error) => error.error === 'invalid_scope');
  done('oauth4webapi', method);
}
