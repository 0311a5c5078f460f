// npm openid-client with private_key_jwt: token, use, introspection, revocation. Its third argument is a folder.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import * as client from 'openid-client';
import { base, done, id, resource, scope, secret as folder } from './support.mjs';

const { kid, ...jwk } = JSON.parse(readFileSync(`${folder}/private.json`, 'utf8'));
const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
const key = await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['sign']);
const config = await client.discovery(new URL(base), id, undefined, client.PrivateKeyJwt({ key, kid }), {
  algorithm: 'oauth2',
  execute: [client.allowInsecureRequests],
});
const server = config.serverMetadata();
assert.ok(server.token_endpoint_auth_methods_supported.includes('private_key_jwt'));
assert.ok(server.token_endpoint_auth_signing_alg_values_supported.includes('ES256'));

const { access_token: token, token_type: type } = await client.clientCredentialsGrant(config, { scope });
assert.equal(type, 'bearer');
const use = () => client.fetchProtectedResource(config, token, new URL(resource), 'GET');
assert.equal((await use()).status, 200);
assert.equal((await client.tokenIntrospection(config, token)).active, true);
await client.tokenRevocation(config, token);
assert.deepEqual(await client.tokenIntrospection(config, token), { active: false });
done('openid-client', 'private_key_jwt');

const other = await crypto.subtle.generateKey(algorithm, false, ['sign']);
const impostor = new client.Configuration(server, id, undefined, client.PrivateKeyJwt(other.privateKey));
client.allowInsecureRequests(impostor);
await assert.rejects(
  client.clientCredentialsGrant(impostor, { scope }),
  (error) => error.status === 401,
);
done('openid-client', 'private_key_jwt of another key');
