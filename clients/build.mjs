// Builds the package of the current folder: types from the OpenAPI document (for the client), then ESM and CommonJS,
// each with its own types. Run by `npm run build` and before `npm pack`.
//
// The document is docs/openapi.json, or what STRONGROOM_OPENAPI names (a file).
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const clients = dirname(fileURLToPath(import.meta.url));
const folder = process.cwd();
const { name } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));

function run(tool, ...parameters) {
  execFileSync(process.execPath, [join(clients, "node_modules", ...tool), ...parameters], {
    cwd: folder,
    stdio: ["ignore", "ignore", "inherit"],
  });
}

function tsc(...parameters) {
  execFileSync(process.execPath, [join(clients, "node_modules/typescript/bin/tsc"), ...parameters], {
    cwd: folder,
    stdio: "inherit",
  });
}

if (name === "@strongroom/client") {
  const document = resolve(process.env.STRONGROOM_OPENAPI ?? join(clients, "../docs/openapi.json"));
  run(["openapi-typescript", "bin", "cli.js"], document, "--output", "src/openapi.ts", "--default-non-nullable", "false");
}

rmSync(join(folder, "dist"), { recursive: true, force: true });
tsc("--project", "tsconfig.json", "--outDir", "dist/esm");
// A CommonJS build is what the same sources become if the nearest package.json does not say "module".
const manifest = join(folder, "package.json");
const before = readFileSync(manifest, "utf8");
try {
  writeFileSync(manifest, before.replace('"type": "module"', '"type": "commonjs"'));
  tsc("--project", "tsconfig.json", "--outDir", "dist/cjs");
} finally {
  writeFileSync(manifest, before);
}
mkdirSync(join(folder, "dist/cjs"), { recursive: true });
writeFileSync(join(folder, "dist/cjs/package.json"), '{ "type": "commonjs" }\n');
const license = join(clients, "../LICENSE");
if (existsSync(license)) copyFileSync(license, join(folder, "LICENSE"));
