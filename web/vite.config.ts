import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

// The server has no Brotli, so the compressed files are built, at the highest quality, which is the default.
const brotli: Plugin = {
  name: "brotli",
  writeBundle({ dir }, bundle) {
    for (const name of Object.keys(bundle)) {
      if (/\.(js|css)$/.test(name)) writeFileSync(join(dir!, `${name}.br`), brotliCompressSync(readFileSync(join(dir!, name))));
    }
  },
};

export default defineConfig({
  base: "/ui/",
  plugins: [brotli],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    // Every chunk loads the polyfill otherwise, and the browsers of this target do not need it.
    modulePreload: { polyfill: false },
    // Nothing is inlined: the content security policy allows no data URLs.
    assetsInlineLimit: 0,
    // For build.py, which lists the files of each view.
    manifest: true,
    rolldownOptions: {
      // The HTML of a view loads the module of that view.
      input: ["index.html", "src/chat/view.tsx", "src/documents/view.tsx", "src/jobs/view.tsx", "src/operations/view.tsx", "src/operations/webhooks.tsx", "src/usage/view.tsx"],
      output: {
        codeSplitting: {
          includeDependenciesRecursively: false,
          groups: [
            // One file for the frame and what views share: each request costs more than the few bytes that one of them does not need.
            { name: "frame", test: /web\/src\/(start|app|later|palette|words|router|resource|api|key|store|types|ui\/(basics|focus|table|virtual|undo|memo)|documents\/(download|uploads|deletion|bulk|page_sheet|page_picture)|operations\/hooks|jobs\/delivery_card)\.tsx?$|vite\/preload-helper|node_modules\/(?!katex|lowlight|highlight|marked)/ },
          ],
        },
      },
    },
    // The licences of the packages that are part of the built files ask for this.
    license: { fileName: "licenses.md" },
  },
});
