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
    // The licences of the packages that are part of the built files ask for this.
    license: { fileName: "licenses.md" },
  },
});
