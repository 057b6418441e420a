// The last scores of a camera against the threshold. A reject is a square above it, a fault a triangle, a pass a dot.
import { html, useEffect, useRef } from '../html.js';
import { score, t } from '../language.js';

// Props: verdicts, oldest first: [{decision, score, threshold}]
export function Strip({ verdicts, camera }) {
  const canvas = useRef(null);
  useEffect(() => {
    const here = canvas.current; // an observer may still be told after the page has gone on
    const draw = () => paint(here, verdicts);
    draw();
    const watcher = new ResizeObserver(draw);
    watcher.observe(here);
    return () => watcher.disconnect();
  }, [verdicts]);
  const last = verdicts[verdicts.length - 1];
  const said = t('line.strip', { camera, count: verdicts.length, score: score(last?.score), threshold: score(last?.threshold) });
  return html`<canvas class="strip" ref=${canvas} role="img" aria-label=${said}></canvas>`;
}

const SPACE = 7; // px from one verdict to the next

function paint(canvas, verdicts) {
  const { clientWidth: wide, clientHeight: tall } = canvas;
  if (!wide) return;
  const sharp = devicePixelRatio;
  canvas.width = wide * sharp;
  canvas.height = tall * sharp;
  const pen = canvas.getContext('2d');
  pen.scale(sharp, sharp);
  const style = getComputedStyle(canvas);
  const tone = (name) => { canvas.style.color = `var(--${name})`; return style.color; };
  const colours = { pass: tone('pass'), reject: tone('reject'), fault: tone('fault'), line: tone('text'), rule: tone('rule') };
  canvas.style.color = '';
  const shown = verdicts.slice(-Math.floor(wide / SPACE));
  const threshold = shown[shown.length - 1]?.threshold ?? 1;
  const high = Math.max(2 * threshold, 1e-9);
  const y = (value) => tall - 4 - (Math.min(value, high) / high) * (tall - 10);
  pen.strokeStyle = colours.rule;
  pen.strokeRect(0.5, 0.5, wide - 1, tall - 1);
  shown.forEach((verdict, index) => {
    const x = wide - (shown.length - index) * SPACE + SPACE / 2;
    pen.fillStyle = colours[verdict.decision];
    pen.beginPath();
    if (verdict.decision === 'pass') pen.arc(x, y(verdict.score), 2.2, 0, 7);
    else if (verdict.decision === 'reject') pen.rect(x - 3, y(verdict.score) - 3, 6, 6);
    else { pen.moveTo(x, 4); pen.lineTo(x + 4, 11); pen.lineTo(x - 4, 11); }
    pen.fill();
  });
  pen.strokeStyle = colours.line;
  pen.setLineDash([6, 4]);
  pen.beginPath();
  pen.moveTo(0, y(threshold));
  pen.lineTo(wide, y(threshold));
  pen.stroke();
}
