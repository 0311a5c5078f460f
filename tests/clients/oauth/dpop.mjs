// Tokens that are bound to a key: npm openid-client does all of it; npm dpop makes the proofs, fetch the rest.
import assert from 'node:assert/strict';
import * as dpop from 'dpop';
import * as client from 'openid-client';
import { base, done, form, id, resource, scope, secret } from './support.mjs';

const config = await client.discovery(new URL(base), id, undefined, client.ClientSecretBasic(secret), {
  algorithm: 'oauth2',
  execute: [client.allowInsecureRequests],
});
for (const algorithm of config.serverMetadata().dpop_signing_alg_values_supported) {
  if (!['ES256', 'Ed25519', 'PS256', 'RS256'].includes(algorithm)) continue;
  const keys = await client.randomDPoPKeyPair(algorithm);
  const DPoP = client.getDPoPHandle(config, keys);
  const { access_token: token, token_type: type } = await client.clientCredentialsGrant(config, { scope }, { DPoP });
  assert.equal(type, 'dpop');
  const use = (handle) =>
    client.fetchProtectedResource(config, token, new URL(`${resource}?limit=1`), 'GET', null, null, { DPoP: handle });
  assert.equal((await use(DPoP)).status, 200);
  assert.equal((await use(DPoP)).status, 200);
  const told = await client.tokenIntrospection(config, token);
  assert.equal(told.token_type, 'DPoP');
  assert.equal(told.cnf.jkt, await DPoP.calculateThumbprint());
  const refused = (error) => error.status === 401 && error.cause[0].parameters.error === 'invalid_token';
  await assert.rejects(use(undefined), refused);
  await assert.rejects(use(client.getDPoPHandle(config, await client.randomDPoPKeyPair())), refused);
  done('openid-client', `DPoP ${algorithm}`);
}

for (const algorithm of ['ES256', 'Ed25519', 'PS256', 'RS256']) {
  const keys = await dpop.generateKeyPair(algorithm);
  const endpoint = `${base}/oauth2/token`;
  const answer = await fetch(endpoint, {
    method: 'POST',
    headers: {
      authorization: `Basic ${btoa(`${id}:${secret}`)}`,
      'content-type': 'application/x-www-form-urlencoded',
      dpop: await dpop.generateProof(keys, endpoint, 'POST'),
    },
    body: form({ grant_type: 'client_credentials' }),
  });
  const { access_token: token, token_type: type } = await answer.json();
  assert.equal(type, 'DPoP');
  const proof = await dpop.generateProof(keys, resource, 'GET', undefined, token);
  const use = async (headers) => (await fetch(resource, { headers })).status;
  assert.equal(await use({ authorization: `DPoP ${token}`, dpop: proof }), 200);
  assert.equal(await use({ authorization: `DPoP ${token}`, dpop: proof }), 401);
  assert.equal(await use({ authorization: `Bearer ${token}` }), 401);
  done('dpop', algorithm);
}
