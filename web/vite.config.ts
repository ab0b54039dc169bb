import { defineConfig } from "vite";

export default defineConfig({
  base: "/ui/",
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
