// A server on loopback that answers by a script, and remembers what it was asked.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Asked {
  method: string;
  path: string;
  headers: IncomingMessage["headers"];
  body: string;
}

type Answer = (request: Asked, response: ServerResponse) => void;

export class Script {
  readonly asked: Asked[] = [];
  tokens = 0;
  expiresIn = 3600;
  tokenAnswers: Answer[] = [];
  #answers: Answer[] = [];
  #server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      const asked = { method, path: url, headers, body: Buffer.concat(chunks).toString() };
      if (url === "/oauth2/token") return this.#token(asked, response);
      this.asked.push(asked);
      (this.#answers.shift() ?? problem(500, "internal"))(asked, response);
    });
  });

  static async start(): Promise<Script> {
    const script = new Script();
    await new Promise<void>((done) => script.#server.listen(0, "127.0.0.1", done));
    return script;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  answers(...answers: Answer[]): void {
    this.#answers.push(...answers);
  }

  stop(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((done) => void this.#server.close(() => done()));
  }

  #token(asked: Asked, response: ServerResponse): void {
    this.tokens += 1;
    const scripted = this.tokenAnswers.shift();
    if (scripted) return scripted(asked, response);
    json(200, { access_token: `token-${this.tokens}`, token_type: "Bearer", expires_in: this.expiresIn })(asked, response);
  }
}

export function json(status: number, body: unknown, headers: Record<string, string> = {}): Answer {
  return (_, response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(body));
  };
}

export function problem(status: number, code: string, more: object = {}, headers: Record<string, string> = {}): Answer {
  const body = { type: `/problems/${code}`, title: code, status, detail: "Why.", code, requestID: "r1", ...more };
  return json(status, body, { "content-type": "application/problem+json", ...headers });
}

/** Closes the connection without a byte. */
export const dropped: Answer = (_, response) => void response.destroy();
/** Never answers. */
export const silent: Answer = () => undefined;
/** Breaks off in the middle of the body. */
export const half: Answer = (_, response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": "100" });
  response.write('{"id": ');
  setTimeout(() => response.destroy(), 10);
};
