// The pages of a document as small pictures in a column, of which only those in view exist.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { PagePicture, usePicture } from "./page_picture.tsx";

const HEIGHT = 148;
const WIDTH = 160;
const SETTLE_MS = 200;

export function PageStrip({ document, pages, current, onChoose }: { document: string; pages: number; current: number; onChoose: (page: number) => void }) {
  const strip = useRef<HTMLElement>(null);
  const view = useSignal({ top: 0, height: 800 });
  const look = () => {
    view.value = { top: strip.current!.scrollTop, height: strip.current!.clientHeight };
  };
  useEffect(look, []);
  useEffect(() => {
    const { scrollTop, clientHeight } = strip.current!;
    const top = (current - 1) * HEIGHT;
    if (top < scrollTop || top + HEIGHT > scrollTop + clientHeight) strip.current!.scrollTop = top - (clientHeight - HEIGHT) / 2;
  }, [current]);
  const first = Math.max(0, Math.floor(view.value.top / HEIGHT) - 1);
  const last = Math.min(pages, Math.ceil((view.value.top + view.value.height) / HEIGHT) + 1);
  return (
    <nav ref={strip} class="page-strip" aria-label="Pages" onScroll={look}>
      <div style={{ height: `${pages * HEIGHT}px` }}>
        {Array.from({ length: Math.max(0, last - first) }, (_, place) => first + place + 1).map((page) => (
          <button key={page} type="button" aria-label={`Page ${page}`} aria-current={page === current ? "page" : undefined}
            style={{ top: `${(page - 1) * HEIGHT}px`, height: `${HEIGHT - 8}px` }} onClick={() => onChoose(page)}>
            <SmallPage document={document} page={page} />
            <small>{page}</small>
          </button>
        ))}
      </div>
    </nav>
  );
}

/** A page that is drawn once it has stayed in view for a moment: a fast scroll asks for nothing. */
function SmallPage({ document, page }: { document: string; page: number }) {
  const settled = useSignal(false);
  useEffect(() => {
    const timer = setTimeout(() => (settled.value = true), SETTLE_MS);
    return () => clearTimeout(timer);
  }, []);
  const picture = usePicture(document, settled.value ? page : null, WIDTH);
  return picture.data.value ? <PagePicture picture={picture.data.value} label="" /> : <span class="page-blank" />;
}
