// The picture of a page, with places on it marked.

import { useEffect, useRef } from "preact/hooks";
import { fetchBlob } from "../api.ts";
import { useResource, type Resource } from "../resource.ts";
import type { PageBox } from "../types.ts";

export const PAGE_WIDTH = 1200;

/** The picture of a page, this many pixels wide; a page of null loads nothing. */
export function usePicture(document: string, page: number | null, width = PAGE_WIDTH): Resource<ImageBitmap> {
  const path = `/documents/${document}/pages/${page}.png?width=${width}`;
  // A canvas and not an image element: pictures need the key, and the policy of the page allows no images from memory.
  return useResource(page === null ? null : `picture ${path}`, async (signal) => createImageBitmap(await fetchBlob(path, signal)));
}

export interface Mark {
  key: string;
  boxes: PageBox[];
  label?: string;
  chosen?: boolean;
  onChoose?: () => void;
}

const percent = (part: number) => `${(100 * part).toFixed(3)}%`;

export function PagePicture({ picture, label, marks = [], reveal }: { picture: ImageBitmap; label: string; marks?: Mark[]; reveal?: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  useEffect(() => {
    canvas.current!.getContext("2d")!.drawImage(picture, 0, 0);
  }, [picture]);
  useEffect(() => {
    if (reveal !== undefined) frame.current!.querySelector(`[data-mark="${CSS.escape(reveal)}"]`)?.scrollIntoView({ block: "center" });
  }, [reveal, picture, marks.length]);
  return (
    <div ref={frame} class="page-picture">
      <canvas ref={canvas} width={picture.width} height={picture.height} {...(label ? { role: "img", "aria-label": label } : { "aria-hidden": true })} />
      {marks.map(({ key, boxes, label: words, chosen, onChoose }) => boxes.map((box, place) => (
        <span key={`${key} ${place}`} class={onChoose ? "box open" : "box"} data-mark={key} data-chosen={chosen} title={words} aria-hidden="true" onClick={onChoose}
          style={{ left: percent(box.x), top: percent(box.y), width: percent(box.width), height: percent(box.height) }} />
      )))}
    </div>
  );
}
