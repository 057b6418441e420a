// The last scores of a camera against the threshold. A reject is a square above it, a fault a triangle, a pass a dot.
import { html, useEffect, useRef } from '../html.js';
import { score, t } from '../language.js';

// Props: verdicts, oldest first: [{decision, score, threshold}]
export function Strip({ verdicts, camera }) {
  const canvas = useRef(null);
  const newest = useRef(verdicts);
  newest.current = verdicts;
  useEffect(() => {
    const here = canvas.current; // an observer may still be told after the page has gone on
    const watcher = new ResizeObserver(() => paint(here, newest.current));
    watcher.observe(here);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => paint(canvas.current, verdicts), [verdicts]);
  const last = verdicts[verdicts.length - 1];
  const said = t('line.strip', { camera, count: verdicts.length, score: score(last?.score), threshold: score(last?.threshold) });
  return html`<canvas class="strip" ref=${canvas} role="img" aria-label=${said}></canvas>`;
}

const SPACE = 7; // px from one verdict to the next

// Each look at a colour has the browser work out its styles anew, so they are looked at once for each scheme.
const schemes = {};
function colours(canvas) {
  const matches = (query) => matchMedia(query).matches;
  const scheme = [document.documentElement.dataset.theme, matches('(prefers-color-scheme: dark)'), matches('(forced-colors: active)')].join();
  const tone = (name) => {
    canvas.style.color = `var(--${name})`;
    return getComputedStyle(canvas).color;
  };
  schemes[scheme] ??= Object.fromEntries(['pass', 'reject', 'fault', 'text', 'rule'].map((name) => [name, tone(name)]));
  return schemes[scheme];
}

function paint(canvas, verdicts) {
  const { clientWidth: wide, clientHeight: tall } = canvas;
  if (!wide) return;
  const sharp = devicePixelRatio;
  canvas.width = wide * sharp;
  canvas.height = tall * sharp;
  const pen = canvas.getContext('2d');
  pen.scale(sharp, sharp);
  const tones = colours(canvas);
  const shown = verdicts.slice(-Math.floor(wide / SPACE));
  const threshold = shown[shown.length - 1]?.threshold ?? 1;
  const high = Math.max(2 * threshold, 1e-9);
  const low = Math.min(0, ...shown.filter((one) => one.decision === 'pass').map((one) => one.score));
  const y = (value) => tall - 4 - ((Math.min(value, high) - low) / (high - low)) * (tall - 10);
  pen.strokeStyle = tones.rule;
  pen.strokeRect(0.5, 0.5, wide - 1, tall - 1);
  shown.forEach((verdict, index) => {
    const x = wide - (shown.length - index) * SPACE + SPACE / 2;
    pen.fillStyle = tones[verdict.decision];
    pen.beginPath();
    if (verdict.decision === 'pass') pen.arc(x, y(verdict.score), 2.2, 0, 7);
    else if (verdict.decision === 'reject') pen.rect(x - 3, y(verdict.score) - 3, 6, 6);
    else { pen.moveTo(x, 4); pen.lineTo(x + 4, 11); pen.lineTo(x - 4, 11); }
    pen.fill();
  });
  pen.strokeStyle = tones.text;
  pen.setLineDash([6, 4]);
  pen.beginPath();
  pen.moveTo(0, y(threshold));
  pen.lineTo(wide, y(threshold));
  pen.stroke();
}
