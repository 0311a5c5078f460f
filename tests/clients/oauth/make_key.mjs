// A key pair for a client, with what Node has: private.json for the client, jwks.json for the service.
import { writeFileSync } from 'node:fs';

const folder = process.argv[2];
const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
const { kty, crv, x, y, d } = await crypto.subtle.exportKey('jwk', pair.privateKey);
writeFileSync(`${folder}/private.json`, JSON.stringify({ kty, crv, x, y, d, kid: 'k' }), { mode: 0o600 });
writeFileSync(`${folder}/jwks.json`, JSON.stringify({ keys: [{ kty, crv, x, y, kid: 'k', use: 'sig' }] }));
