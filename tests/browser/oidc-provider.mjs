// npm oidc-provider, at which the console's operators sign in: any name and password will do there. Its first line of output
// is its issuer.
//
//     node oidc-provider.mjs CONSOLE_ORIGIN
import { createServer } from "node:http";
import Provider from "oidc-provider";

const GROUPS = { ana: ["bank-admins", "staff"], sam: ["support"], eve: ["guests"] };

const [console_] = process.argv.slice(2);
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: "strongroom-console",
      client_secret: "a-secret-of-the-provider",
      redirect_uris: [`${console_}/sign-in/oidc/callback`],
    }],
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"], email: ["email"] },
    // The console reads the ID token alone.
    conformIdTokenClaims: false,
    cookies: { keys: ["a key of this run"] },
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, preferred_username: sub, groups: GROUPS[sub] ?? [] }),
    }),
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
