// The example's backend: serves the page, knows who is logged in, and holds what no page may hold.
import express from "express";
import { connections } from "./connections.js";
import { answerError, Refusal } from "./errors.js";
import { banks, frontend, port, strongroomUrl } from "./settings.js";
import { loggedIn, logIn, userOf, users } from "./users.js";

// What the page may load and call. With the real Connect or Link, add what their documentation lists.
const POLICY = [
  "default-src 'self'",
  "img-src 'self' data:",
  `connect-src 'self' ${new URL(strongroomUrl).origin}`,
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

const app = express();
app.disable("x-powered-by");
app.use((_request, response, next) => {
  response.set({ "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer" });
  next();
});

const api = express.Router();
api.use((_request, response, next) => {
  response.set("Cache-Control", "no-store");
  next();
});
api.use(express.json());
// What the page has to know. There is no secret in it: an app key is public.
api.get("/start", (request, response) => {
  const links = [...banks.values()].map(({ id, name, link }) => ({ id, name, link }));
  response.json({ user: userOf(request) ?? null, users, strongroomUrl, banks: links });
});
api.post("/login", logIn);
api.use(loggedIn, connections);

app.use("/api", api);
app.use(express.static(frontend));
app.use(() => {
  throw new Refusal(404, "not_found");
});
app.use(answerError);

const server = app.listen(port, "127.0.0.1", (error) => {
  if (error) throw error;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    server.close();
    server.closeIdleConnections();
  });
}
