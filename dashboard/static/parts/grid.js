// A grid that scrolls through any number of rejects: only the rows in sight are in the document.
import { html, useEffect, useLayoutEffect, useRef, useState } from '../html.js';
import { t } from '../language.js';

const CARD = 136; // px, the least width of a card
const MOST_IN_SIGHT = 90; // cards grow on large screens, so that the document stays small
const BATCH = 120; // rows fetched at once
const KEPT_BATCHES = 30;
const BELOW = 46; // px of text below a picture

// Props: count; load(offset, limit) → rows; item(row, index) → what a card holds; open(row, index).
export function Grid({ count, load, item, open, shape = 1, label }) {
  const box = useRef(null);
  const batches = useRef(new Map());
  const [size, setSize] = useState(null);
  const [top, setTop] = useState(0);
  const [, redraw] = useState(0);
  const [chosen, setChosen] = useState(0);
  const wanted = useRef(null);

  useLayoutEffect(() => {
    const here = box.current;
    const measure = () => {
      const rem = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
      setSize({ width: here.clientWidth, height: here.clientHeight, rem });
    };
    const watcher = new ResizeObserver(measure);
    watcher.observe(here);
    measure();
    return () => watcher.disconnect();
  }, []);

  const plan = size && layout(size, shape);
  const rows = plan ? Math.ceil(count / plan.columns) : 0;
  const first = plan ? Math.max(0, Math.floor(top / plan.tall) - 1) : 0;
  const last = plan ? Math.min(rows, Math.ceil((top + size.height) / plan.tall) + 1) : 0;
  const begin = plan ? first * plan.columns : 0;
  const end = plan ? Math.min(count, last * plan.columns) : 0;

  useEffect(() => {
    for (let batch = Math.floor(begin / BATCH); batch * BATCH < end; batch++) {
      if (batches.current.has(batch)) continue;
      batches.current.set(batch, null);
      load(batch * BATCH, BATCH).then(
        (loaded) => { batches.current.set(batch, loaded); redraw((n) => n + 1); },
        () => batches.current.delete(batch), // tried again when it is next in sight
      );
    }
    for (const batch of batches.current.keys()) {
      if (batches.current.size <= KEPT_BATCHES) break;
      if ((batch + 1) * BATCH < begin || batch * BATCH > end) batches.current.delete(batch);
    }
  }, [begin, end]);

  useLayoutEffect(() => {
    if (wanted.current === null) return;
    box.current.querySelector(`[data-index="${wanted.current}"]`)?.focus({ preventScroll: true });
    if (document.activeElement?.dataset?.index === String(wanted.current)) wanted.current = null;
  });

  const go = (index) => {
    const to = Math.max(0, Math.min(count - 1, index));
    const y = Math.floor(to / plan.columns) * plan.tall;
    if (y < box.current.scrollTop) box.current.scrollTop = y;
    else if (y + plan.tall > box.current.scrollTop + size.height) box.current.scrollTop = y + plan.tall - size.height;
    wanted.current = to;
    setChosen(to);
    setTop(box.current.scrollTop);
  };
  const keys = (event) => {
    const page = plan.columns * Math.max(1, Math.floor(size.height / plan.tall));
    const move = {
      ArrowRight: chosen + 1, ArrowLeft: chosen - 1, ArrowDown: chosen + plan.columns, ArrowUp: chosen - plan.columns,
      PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: count - 1,
    }[event.key];
    if (move === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    go(move);
  };

  const cards = [];
  const reachable = chosen >= begin && chosen < end ? chosen : begin;
  for (let index = begin; index < end; index++) {
    const row = batches.current.get(Math.floor(index / BATCH))?.[index % BATCH];
    const place = {
      left: `${plan.gap + (index % plan.columns) * (plan.wide + plan.gap)}px`,
      top: `${plan.gap + Math.floor(index / plan.columns) * plan.tall}px`,
      width: `${plan.wide}px`, height: `${plan.tall - plan.gap}px`,
    };
    cards.push(html`<div role="listitem" key=${index} style=${place} aria-setsize=${count} aria-posinset=${index + 1}><button class="thumb"
      data-index=${index} tabindex=${index === reachable ? 0 : -1} onFocus=${() => setChosen(index)} onClick=${() => row && open(row, index)}>
      ${row ? item(row, index) : html`<span class="muted">…</span>`}</button></div>`);
  }
  return html`<div class="window" ref=${box} onScroll=${() => setTop(box.current.scrollTop)} onKeyDown=${plan && keys}>
    <div class="all" role="list" aria-label=${label ?? t('rejects.title')} style=${{ height: `${plan ? rows * plan.tall + plan.gap : 0}px` }}>${cards}</div>
  </div>`;
}

function layout({ width, height, rem }, shape) {
  const gap = 8;
  const least = Math.max(CARD * Math.min(rem, 1.5), Math.sqrt((width * height) / MOST_IN_SIGHT) - BELOW * rem / 2);
  const columns = Math.max(1, Math.floor((width - gap) / (least + gap)));
  const wide = Math.floor((width - gap * (columns + 1)) / columns);
  return { gap, columns, wide, tall: Math.round((wide - 12) / shape + BELOW * rem + 14 + gap) };
}
