import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { Strongroom } from "../src/index.js";

const DOCUMENT = process.env["STRONGROOM_OPENAPI"] ?? new URL("../../../docs/openapi.json", import.meta.url);
/** OAuth's, the wires of the providers' SDKs, and what operators' tools read. */
const NOT_HERE = [
  /^(issue|revoke|introspect)Token$/,
  /^get(KeySet|ServerMetadata|Health|Readiness|Metrics|ProblemType)$/,
  /Wire|PlaidWebhook/,
];

it("has a method for each operation of the document", () => {
  const { paths } = JSON.parse(readFileSync(DOCUMENT, "utf8")) as { paths: Record<string, Record<string, unknown>> };
  const operations = Object.values(paths)
    .flatMap((path) => Object.values(path))
    .map((operation) => (operation as { operationId?: string }).operationId)
    .filter((id): id is string => id !== undefined && !NOT_HERE.some((left) => left.test(id)));
  expect(operations.length).toBeGreaterThan(30);
  const methods = Object.getOwnPropertyNames(Strongroom.prototype);
  expect(operations.filter((id) => !methods.includes(id))).toEqual([]);
});
