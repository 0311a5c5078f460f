// What a backend writes for itself: fastify, Dapi's SDK and `pg`. It keeps the code before it exchanges it and the sealed
// token after, as the floor `pair` does, but has no accounts, no scopes, no chain and no sweep. Its first line is its address.
//
//     node fastify.mjs UPSTREAM DATABASE_URL
import { createCipheriv, createHash, randomBytes, randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import Fastify from 'fastify';
import pg from 'pg';

const require = createRequire(import.meta.url);
const { default: DapiApp } = require('@dapi-co/dapi-node');
const { DAPI_URL } = require('@dapi-co/dapi-node/lib/constants/url');

const [upstream, database] = process.argv.slice(2);
// The SDK has no option for its base URL, but reads it anew for every call.
DAPI_URL.BASE_URL = `http://${upstream}/v2`;
const dapi = new DapiApp({ appSecret: 'secret' });
const pool = new pg.Pool({ connectionString: database, max: 32 });
const key = randomBytes(32);

function seal(text) {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  return Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]);
}

async function activate(id, token) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await client.query({
      name: 'activate',
      text: 'UPDATE intents SET token = $2, code = NULL WHERE id = $1',
      values: [id, seal(token)],
    });
    await client.query({
      name: 'audit',
      text: "INSERT INTO trail (id, what) VALUES ($1, 'activated')",
      values: [randomUUID()],
    });
    await client.query('COMMIT');
  } finally {
    client.release();
  }
}

const server = Fastify();
server.post('/v1/connections', async (request, reply) => {
  const { accessCode, connectionID } = request.body;
  const id = randomUUID();
  await pool.query({
    name: 'intent',
    text: 'INSERT INTO intents (id, code, hash) VALUES ($1, $2, $3)',
    values: [id, seal(accessCode), createHash('sha256').update(accessCode).digest()],
  });
  const answer = await dapi.auth.exchangeToken(accessCode, connectionID);
  if (!answer.success) {
    return reply.code(502).send({ id, status: 'rejected' });
  }
  await activate(id, answer.accessToken);
  return reply.code(201).send({ id, status: 'active' });
});

const address = await server.listen({ host: '127.0.0.1', port: 0 });
console.log(address.replace('http://', ''));
