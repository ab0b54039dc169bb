// A list of rows of the same height, of which only those in view exist.

import { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "@tanstack/virtual-core";
import { Fragment, type ComponentChildren } from "preact";
import { useEffect, useReducer, useRef } from "preact/hooks";

export function VirtualRows({ count, height, row, label, onEnd, onView, columns, template, head }: {
  count: number;
  height: number;
  /** Its components must keep no state of their own: elements of one row are reused for another. */
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
  const rendered = useRef({ first: 0, last: 0, offset: 0 });
  const usedRow = useRef<Element | null>(null);
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

  const noteUse = (event: Event) => {
    usedRow.current = (event.target as Element).closest(".grid-row");
  };

  const items = list.current.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? 0;
  // After a jump to other rows, the elements of the old ones are reused, which takes about half the time of making new ones. After a shorter
  // scroll they would have to be moved, because Tab and screen readers follow their order. Nothing is reused while the row exists that was
  // pressed or focused last: what began in it, a click or a return of the focus, must not end in another row.
  const previous = rendered.current;
  const jumped = first > previous.last || last < previous.first;
  const offset = jumped && !usedRow.current?.isConnected ? previous.offset + first - previous.first : previous.offset;
  rendered.current = { first, last, offset };
  useEffect(() => onView?.(first, last), [first, last]);
  useEffect(() => {
    if (onEnd && count > 0 && last >= count - 5) onEnd();
  }, [last, count]);

  return (
    <div class="grid" role="table" aria-label={label} aria-rowcount={count + 1} aria-colcount={columns} style={{ "--columns": template } as any}>
      <div role="rowgroup">{head}</div>
      <div ref={scroller} class="grid-body" role="rowgroup" tabIndex={0} aria-label={`${label}: rows`}>
        <div class="grid-space" role="presentation" style={{ height: `${list.current.getTotalSize()}px` }} onFocusIn={noteUse} onPointerDown={noteUse}>
          <div class="grid-rows" role="presentation" style={{ top: `${items[0]?.start ?? 0}px`, "--height": `${height}px` } as any}>
            {items.map(({ index }) => <Fragment key={index - offset}>{row(index)}</Fragment>)}
          </div>
        </div>
      </div>
    </div>
  );
}
