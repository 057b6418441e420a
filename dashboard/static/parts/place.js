// Draw a rectangle over the part: only rejects whose peak lies in it are shown. Numbers do the same without a pointer.
import { html, useRef, useState } from '../html.js';
import { number, t } from '../language.js';

const KEYS = ['x0', 'y0', 'x1', 'y1'];

// Props: picture (an address or null), size {width, height} of the camera's picture, place {x0, y0, x1, y1} or null.
export function Place({ picture, size, place, onPlace }) {
  const box = useRef(null);
  const [drawn, setDrawn] = useState(null);
  const { width, height } = size;
  const shown = drawn ?? place;

  const at = (event) => {
    const edge = box.current.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return [
      Math.round(within((event.clientX - edge.left) / edge.width) * width),
      Math.round(within((event.clientY - edge.top) / edge.height) * height),
    ];
  };
  const down = (event) => {
    box.current.setPointerCapture(event.pointerId);
    const [x, y] = at(event);
    setDrawn({ from: [x, y], x0: x, y0: y, x1: x, y1: y });
  };
  const drag = (event) => {
    if (!drawn) return;
    const [x, y] = at(event);
    const [fx, fy] = drawn.from;
    setDrawn({ ...drawn, x0: Math.min(x, fx), y0: Math.min(y, fy), x1: Math.max(x, fx), y1: Math.max(y, fy) });
  };
  const up = () => {
    if (!drawn) return;
    const { x0, y0, x1, y1 } = drawn;
    setDrawn(null);
    if (x1 - x0 > width / 100 && y1 - y0 > height / 100) onPlace({ x0, y0, x1, y1 });
  };
  const typed = (key) => (event) => {
    const value = event.target.value === '' ? null : Number(event.target.value);
    if (value === null || !Number.isFinite(value)) return;
    onPlace({ ...(place ?? { x0: 0, y0: 0, x1: width, y1: height }), [key]: Math.round(value) });
  };
  return html`<fieldset class="stack tight">
    <legend>${t('filter.place')}</legend>
    <p class="small muted">${t('filter.place.how')}</p>
    <div class="place" ref=${box} style=${{ '--shape': width / height }} onPointerDown=${down} onPointerMove=${drag} onPointerUp=${up}
      onPointerCancel=${() => setDrawn(null)}>
      ${picture && html`<img src=${picture} alt="" draggable=${false} onError=${(event) => event.target.remove()} />`}
      <svg viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
        ${shown && html`<path d=${`M0 0H${width}V${height}H0ZM${shown.x0} ${shown.y0}V${shown.y1}H${shown.x1}V${shown.y0}Z`} fill="rgb(0 0 0 / 0.5)" fill-rule="evenodd" />
        <rect x=${shown.x0} y=${shown.y0} width=${shown.x1 - shown.x0} height=${shown.y1 - shown.y0} fill="none" stroke="#fff" stroke-width="3" vector-effect="non-scaling-stroke" />`}
      </svg>
    </div>
    <div class="corners">${KEYS.map((key) => html`<label class="field" key=${key}><span>${t(`filter.place.${key}`)}</span>
      <input type="number" inputmode="numeric" min="0" max=${key[0] === 'x' ? width : height} value=${shown?.[key] ?? ''}
        placeholder=${number({ x0: 0, y0: 0, x1: width, y1: height }[key])} onChange=${typed(key)} /></label>`)}</div>
    ${place && html`<button onClick=${() => onPlace(null)}>${t('filter.place.clear')}</button>`}
  </fieldset>`;
}
