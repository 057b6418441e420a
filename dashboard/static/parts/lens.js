// Pictures that are moved and enlarged together: what lies under one lies under the other.
import { html, useEffect, useRef } from '../html.js';
import { t } from '../language.js';
import { Icon } from '../shapes.js';

export const WHOLE = { x: 0, y: 0, scale: 1 }; // x, y: what lies at the upper left, as a share of the picture
const LARGEST = 24;

const bounded = ({ x, y, scale }) => {
  const zoom = Math.min(LARGEST, Math.max(1, scale));
  const most = 1 - 1 / zoom;
  return { scale: zoom, x: Math.min(most, Math.max(0, x)), y: Math.min(most, Math.max(0, y)) };
};

// Enlarge by a factor and keep the point (px, py), a share of the window, where it is.
export const enlarged = (view, factor, px = 0.5, py = 0.5) => {
  const scale = Math.min(LARGEST, Math.max(1, view.scale * factor));
  return bounded({ scale, x: view.x + px / view.scale - px / scale, y: view.y + py / view.scale - py / scale });
};

export const moved = (view, dx, dy) => bounded({ ...view, x: view.x + dx / view.scale, y: view.y + dy / view.scale });

// The view in which (x, y), shares of the picture, lies in the middle.
export const centred = (x, y, scale) => bounded({ scale, x: x - 0.5 / scale, y: y - 0.5 / scale });

export function Lens({ view, onView, shape, label, children }) {
  const box = useRef(null);
  const pointers = useRef(new Map());
  const current = useRef(view);
  current.current = view;

  const share = (event) => {
    const { left, top, width, height } = box.current.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  };
  useEffect(() => {
    const turn = (event) => {
      event.preventDefault(); // the page must not scroll too, so this listener cannot be passive
      onView(enlarged(current.current, event.deltaY < 0 ? 1.25 : 0.8, ...share(event)));
    };
    box.current.addEventListener('wheel', turn, { passive: false });
    return () => box.current?.removeEventListener('wheel', turn);
  }, [onView]);

  const down = (event) => {
    box.current.setPointerCapture(event.pointerId);
    pointers.current.set(event.pointerId, share(event));
  };
  const drag = (event) => {
    const before = pointers.current.get(event.pointerId);
    if (!before) return;
    const now = share(event);
    const other = [...pointers.current].find(([id]) => id !== event.pointerId)?.[1];
    pointers.current.set(event.pointerId, now);
    if (!other) return onView(moved(current.current, before[0] - now[0], before[1] - now[1]));
    const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 0.01;
    onView(enlarged(current.current, far(now, other) / far(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2));
  };
  const up = (event) => pointers.current.delete(event.pointerId);
  const keys = (event) => {
    const change = {
      '+': () => enlarged(view, 1.25), '=': () => enlarged(view, 1.25), '-': () => enlarged(view, 0.8), 0: () => WHOLE,
      ArrowLeft: () => moved(view, -0.1, 0), ArrowRight: () => moved(view, 0.1, 0),
      ArrowUp: () => moved(view, 0, -0.1), ArrowDown: () => moved(view, 0, 0.1),
    }[event.key];
    if (!change || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    onView(change());
  };
  const style = { transform: `scale(${view.scale}) translate(${-view.x * 100}%, ${-view.y * 100}%)` };
  return html`<div class=${`lens ${view.scale > 4 ? 'near' : ''}`} ref=${box} style=${{ '--shape': shape }} tabindex="0"
    role="img" aria-label=${label} onKeyDown=${keys}
    onPointerDown=${down} onPointerMove=${drag} onPointerUp=${up} onPointerCancel=${up}
    onDblClick=${(event) => onView(view.scale > 1 ? WHOLE : enlarged(view, 3, ...share(event)))}>
    <div class="moved" style=${style}>${children}</div>
  </div>`;
}

export const ZoomButtons = ({ view, onView }) => html`<div class="row tight" role="group" aria-label=${t('zoom.title')}>
  <button class="icon" onClick=${() => onView(enlarged(view, 1 / 1.5))} aria-label=${t('zoom.out')} disabled=${view.scale <= 1}>−</button>
  <button class="icon" onClick=${() => onView(enlarged(view, 1.5))} aria-label=${t('zoom.in')} disabled=${view.scale >= LARGEST}>+</button>
  <button onClick=${() => onView(WHOLE)} disabled=${view.scale <= 1}>${t('zoom.whole')}</button>
</div>`;
