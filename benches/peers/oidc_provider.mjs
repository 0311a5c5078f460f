// npm oidc-provider as a client-credentials server: JWT access tokens, ES256, everything in memory.
// Its first line is its address.
//
//     node oidc_provider.mjs CLIENT_ID CLIENT_SECRET
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [id, secret] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const key = { ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig', kid: 'bench' };
const audience = 'http://127.0.0.1';
const api = { scope: 'read', audience, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };

const provider = new Provider(audience, {
  clients: [{
    client_id: id,
    client_secret: secret,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    id_token_signed_response_alg: 'ES256',
    token_endpoint_auth_method: 'client_secret_post',
  }],
  jwks: { keys: [key] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      getResourceServerInfo: () => api,
    },
  },
  ttl: { ClientCredentials: 3600 },
});
const server = createServer(provider.callback());
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
