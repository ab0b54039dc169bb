// A list of rows of the same height, of which only those in view exist.

import { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "@tanstack/virtual-core";
import type { ComponentChildren } from "preact";
import { useEffect, useReducer, useRef } from "preact/hooks";

export function VirtualRows({ count, height, row, label, onEnd, onView, columns, template, head }: {
  count: number;
  height: number;
  row: (place: number) => ComponentChildren;
  label: string;
  onEnd?: () => void;
  /** Called with the first and the last rendered row. */
  onView?: (first: number, last: number) => void;
  columns: number;
  /** The widths of the columns. */
  template: string;
  head: ComponentChildren;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const [, draw] = useReducer((turn: number, _: void) => turn + 1, 0);
  const list = useRef<Virtualizer<HTMLDivElement, Element> | null>(null);
  const options = {
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => height,
    // More than a turn of a wheel. Each of these rows is also made when the list jumps.
    overscan: 5,
    scrollToFn: elementScroll,
    observeElementRect,
    observeElementOffset,
    onChange: () => draw(),
  };
  list.current ??= new Virtualizer<HTMLDivElement, Element>(options);
  list.current.setOptions(options);
  useEffect(() => {
    const mounted = list.current!._didMount();
    list.current!._willUpdate();
    draw();
    return mounted;
  }, []);
  useEffect(() => list.current!._willUpdate());
  useEffect(() => {
    list.current!.measure();
    draw();
  }, [height]);

  const items = list.current.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => onView?.(first, last), [first, last]);
  useEffect(() => {
    if (onEnd && count > 0 && last >= count - 5) onEnd();
  }, [last, count]);

  return (
    <div class="grid" role="table" aria-label={label} aria-rowcount={count + 1} aria-colcount={columns} style={{ "--columns": template } as any}>
      <div role="rowgroup">{head}</div>
      <div ref={scroller} class="grid-body" role="rowgroup" tabIndex={0} aria-label={`${label}: rows`}>
        <div class="grid-space" role="presentation" style={{ height: `${list.current.getTotalSize()}px` }}>
          {items.map((item) => (
            <div key={item.key as number} class="grid-place" role="presentation" style={{ transform: `translateY(${item.start}px)`, height: `${item.size}px` }}>
              {row(item.index)}
            </div>
          ))}
        </div>
      </div>
    </div>
  );
}
