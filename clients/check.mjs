// Checks what the tests of the packages cannot see from inside: versions in step with Cargo.toml, no registry in the lock
// file, and the packed packages as other projects get them, imported and required, with their types under either.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const clients = dirname(fileURLToPath(import.meta.url));
const read = (path) => readFileSync(join(clients, path), "utf8");
const json = (path) => JSON.parse(read(path));

const version = /^version = "(.+)"$/m.exec(read("../Cargo.toml"))[1];
const found = {
  "typescript/package.json": json("typescript/package.json").version,
  "react/package.json": json("react/package.json").version,
  "react/package.json, its client": json("react/package.json").dependencies["@strongroom/client"],
  "python/pyproject.toml": /^version = "(.+)"$/m.exec(read("python/pyproject.toml"))[1],
  "python/src/strongroom/__init__.py": /^__version__ = "(.+)"$/m.exec(read("python/src/strongroom/__init__.py"))[1],
};
for (const [where, is] of Object.entries(found)) assert.equal(is, version, `${where} is not in step with Cargo.toml`);
assert.doesNotMatch(read("package-lock.json"), /"resolved": "https?:/, "the lock file names a registry");

const folder = mkdtempSync(join(tmpdir(), "strongroom-packed-"));
try {
  mkdirSync(join(folder, "node_modules/@strongroom/client"), { recursive: true });
  mkdirSync(join(folder, "node_modules/@strongroom/react"), { recursive: true });
  for (const name of ["typescript", "react"]) {
    const packed = execFileSync("npm", ["pack", "--ignore-scripts", "--pack-destination", folder, "--json"], {
      cwd: join(clients, name),
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [{ filename, files }] = Object.values(JSON.parse(packed));
    for (const { path } of files) assert.match(path, /^(dist\/|README\.md|LICENSE|package\.json)/, `${path} is packed`);
    const target = join(folder, "node_modules/@strongroom", name === "typescript" ? "client" : "react");
    execFileSync("tar", ["-xzf", join(folder, filename), "-C", target, "--strip-components=1"]);
  }
  for (const name of ["react", "@types", "csstype"]) {
    symlinkSync(join(clients, "node_modules", name), join(folder, "node_modules", name));
  }
  const use = `
const client: Strongroom = new Strongroom({ baseUrl: "http://x.test", session: "cs_1" });
if (String(client) !== "Strongroom(http://x.test)" || typeof useConnectBank !== "function") throw new Error("not as it should be");
export async function status(): Promise<"pending" | "active" | string> {
  for await (const connection of client.listConnections({ clientUserID: "ada" })) return connection.status;
  // @ts-expect-error: the types are those of the document, not any.
  await client.getConnection(1);
  return (await client.getConnection("conn_1")).clientUserID;
}
`;
  const imports = `import { Strongroom } from "@strongroom/client";\nimport { useConnectBank } from "@strongroom/react";\n`;
  writeFileSync(join(folder, "esm.mts"), imports + use);
  writeFileSync(join(folder, "cjs.cts"), imports + use);
  const tsc = join(clients, "node_modules/typescript/bin/tsc");
  const options = ["--strict", "--module", "node16", "--target", "es2022", "--lib", "es2022,dom", "--skipLibCheck"];
  execFileSync(process.execPath, [tsc, ...options, "esm.mts", "cjs.cts"], { cwd: folder, stdio: "inherit" });
  execFileSync(process.execPath, ["esm.mjs"], { cwd: folder, stdio: "inherit" });
  execFileSync(process.execPath, ["cjs.cjs"], { cwd: folder, stdio: "inherit" });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(`clients ${version}: in step, and importable and requirable as packed`);
