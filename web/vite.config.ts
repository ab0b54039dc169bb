import { defineConfig, type Plugin } from "vite";

const PRELOAD = /^ *<link rel="modulepreload".*\n/gm;

// The first request of the page goes over the connection that is open already, and the others wait for new ones. So the largest file comes first.
const largestFirst: Plugin = {
  name: "largest-first",
  transformIndexHtml: {
    order: "post",
    handler: (html) => html.replace(PRELOAD, "").replace(/^ *<script type="module"/m, (html.match(PRELOAD) ?? []).join("") + "$&"),
  },
};

export default defineConfig({
  base: "/ui/",
  plugins: [largestFirst],
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
      output: {
        // One file for what views share: each request costs more than the few bytes that one of them does not need.
        codeSplitting: { groups: [{ name: "shared", test: /web\/src\/(words|router|resource|api|key|store|types|ui\/(basics|table|virtual|undo|markdown|code|memo)|documents\/(download|uploads|deletion|page_sheet|page_picture)|operations\/hooks|jobs\/delivery_card)\.tsx?$|rolldown.runtime|node_modules\/(?!katex|lowlight|highlight)/ }] },
      },
    },
    // The licences of the packages that are part of the built files ask for this.
    license: { fileName: "licenses.md" },
  },
});
