// How the scores lie, and the line to drag: by pointer, or with the keys of a slider.
import { html, useLayoutEffect, useRef, useState } from '../html.js';
import { number, score, t } from '../language.js';

const MARGIN = { left: 46, right: 10, top: 26, bottom: 24 };

// Counts from one to a million in one picture: the height follows the logarithm.
const height = (count, most) => (count <= 0 ? 0 : Math.max(0.015, Math.log1p(count) / Math.log1p(most)));

// Props: edges (bins + 1, ascending), passes and rejects (one count a bin), tail (expected counts a bin, or null),
// beyond (whether the last bin holds all that is higher),
// now (the threshold that holds), value (the one that is tried), onValue(score).
export function Histogram({ edges, passes, rejects, tail, beyond, now, value, onValue }) {
  const box = useRef(null);
  const [wide, setWide] = useState(700);
  const [tall, setTall] = useState(272);
  useLayoutEffect(() => {
    const here = box.current;
    const watcher = new ResizeObserver(() => {
      setWide(here.clientWidth);
      setTall(here.clientHeight);
    });
    watcher.observe(here);
    return () => watcher.disconnect();
  }, []);

  const low = edges[0];
  const high = edges[edges.length - 1];
  const inner = Math.max(50, wide - MARGIN.left - MARGIN.right);
  const floor = tall - MARGIN.bottom;
  const most = Math.max(1, ...passes.map((count, bin) => count + rejects[bin]));
  const x = (at) => MARGIN.left + ((Math.min(high, Math.max(low, at)) - low) / (high - low)) * inner;
  const y = (count) => floor - height(count, most) * (floor - MARGIN.top);
  const step = (high - low) / 500;
  const set = (at) => onValue(Math.min(high, Math.max(low, at)));

  const drag = (event) => {
    if (!event.currentTarget.hasPointerCapture(event.pointerId)) return;
    const { left } = box.current.getBoundingClientRect();
    set(low + ((event.clientX - left - MARGIN.left) / inner) * (high - low));
  };
  const keys = (event) => {
    const to = {
      ArrowRight: value + step, ArrowUp: value + step, ArrowLeft: value - step, ArrowDown: value - step,
      PageUp: value + 10 * step, PageDown: value - 10 * step, Home: low, End: high,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    set(to);
  };
  const bars = (counts, name, above) => counts.map((count, bin) => {
    if (!count) return null;
    const bottom = above ? y(above[bin]) : floor;
    const to = above ? y(above[bin] + count) : y(count);
    const left = x(edges[bin]);
    return html`<rect class=${name} x=${left} y=${to} width=${Math.max(1, x(edges[bin + 1]) - left - 0.5)} height=${Math.max(1, bottom - to)} />`;
  });
  const curve = tail && tail.map((count, bin) => [x((edges[bin] + edges[bin + 1]) / 2), y(count), count])
    .filter(([, , count]) => count > 0.02).map(([px, py], index) => `${index ? 'L' : 'M'}${px} ${py}`).join('');
  const powers = [1, 10, 100, 1000, 10000, 100000, 1000000].filter((power) => power <= most);
  const ticks = (wide < 480 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) => [part, low + part * (high - low)]);
  const said = t('threshold.slider.value', { score: score(value) });
  return html`<div class="histogram" ref=${box}>
    <svg role="img" aria-label=${t('threshold.histogram')}>
      <pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" class="under" /><path d="M0 0V6" class="over" /></pattern>
      ${powers.map((power) => html`<line class="axis" x1=${MARGIN.left} x2=${wide - MARGIN.right} y1=${y(power)} y2=${y(power)} />
        <text x=${MARGIN.left - 6} y=${y(power) + 4} text-anchor="end">${number(power)}</text>`)}
      ${bars(passes, 'passes')}${bars(rejects, 'rejects', passes)}
      ${curve && html`<path class="tail" d=${curve} />`}
      <line class="now" x1=${x(now)} x2=${x(now)} y1=${MARGIN.top - 4} y2=${floor} />
      ${ticks.map(([part, tick]) => html`<text x=${x(tick)} y=${tall - 6} text-anchor=${{ 0: 'start', 1: 'end' }[part] ?? 'middle'}>${part === 1 && beyond ? '≥ ' : ''}${score(tick)}</text>`)}
    </svg>
    <button class="handle" role="slider" aria-label=${t('threshold.slider')} aria-orientation="horizontal"
      aria-valuemin=${low} aria-valuemax=${high} aria-valuenow=${value} aria-valuetext=${said} style=${{ left: `${x(value)}px` }}
      onPointerDown=${(event) => { event.currentTarget.setPointerCapture(event.pointerId); event.currentTarget.focus(); }}
      onPointerMove=${drag} onKeyDown=${keys}></button>
  </div>`;
}
