// Parts of the page whose code is fetched when they are first shown.

import { signal, useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";

/** A component that fetches the one it stands for. */
export function later<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  const loaded = signal<ComponentType<P> | null>(null);
  return function Later(properties: P) {
    const failed = useSignal(false);
    useEffect(() => {
      if (loaded.value === null) load().then((component) => (loaded.value = component), () => (failed.value = true));
    }, []);
    const Loaded = loaded.value;
    if (Loaded !== null) return <Loaded {...properties} />;
    return failed.value ? <p class="notice bad" role="alert">This part of the page could not be loaded. Reload the page.</p> : null;
  };
}
