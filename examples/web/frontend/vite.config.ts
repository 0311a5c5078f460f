import { defineConfig } from "vite";

// The backend serves what is built, on its own origin: so the page's cookie is the backend's, and nothing needs CORS but
// Strongroom.
export default defineConfig({ build: { outDir: "dist", emptyOutDir: true, assetsInlineLimit: 0 } });
