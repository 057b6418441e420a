// uPlot in the page's colours and language, with marks for what changed, and the same figures as a table.
import { html, useEffect, useRef } from '../html.js';
import { clock, minute, number, shortDay, t, when } from '../language.js';

let library = null; // loaded with the first chart: the other pages do without
const uPlot = () => (library ??= import('../vendor/uPlot.js').then((module) => module.default));

const colour = (name) => {
  const probe = document.createElement('span'); // light-dark() has no value before an element has it
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

// Props: title; times (seconds since 1970); series [{label, values, tone, dash?, quiet?, flat?}]: quiet ones are limits without a
// legend, flat ones a level; the later are drawn over the earlier. band [low, high]: series between which to fill.
// marks [{at (seconds), text}]; shown writes a value.
export function Chart({ title, times, series, band, marks = [], shown = number, least = 0 }) {
  const box = useRef(null);
  const drawn = useRef(null);
  const signature = JSON.stringify([title, times, series.map((one) => [one.label, one.values]), marks]);
  const theme = document.documentElement.dataset.theme;

  useEffect(() => {
    let gone = false;
    const here = box.current;
    const draw = async () => {
      const Plot = await uPlot();
      if (gone) return;
      drawn.current?.destroy();
      drawn.current = new Plot(options(series, band, marks, shown, least, here), [times, ...series.map((one) => one.values)], here);
    };
    draw();
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', draw);
    const watcher = new ResizeObserver(() => drawn.current?.setSize({ width: here.clientWidth, height: 240 }));
    watcher.observe(here);
    return () => {
      gone = true;
      dark.removeEventListener('change', draw);
      watcher.disconnect();
      drawn.current?.destroy();
      drawn.current = null;
    };
  }, [signature, theme]);

  return html`<figure class="panel stack tight">
    <h2>${title}</h2>
    <div class="chart" ref=${box} aria-hidden="true"></div>
    <div class="legend">${series.filter((one) => !one.quiet).map((one) => html`<span key=${one.label}>
      <${Swatch} ...${one} />${one.label}</span>`)}</div>
    ${marks.length > 0 && html`<ol class="legend">${marks.slice(-8).map((mark, index) => html`<li key=${index}><b>
      ${letter(marks.length - Math.min(8, marks.length) + index)}
      </b> ${when(mark.at * 1000)} ${mark.text}</li>`)}</ol>`}
    <${Table} times=${times} series=${series} shown=${shown} />
  </figure>`;
}

const letter = (index) => String.fromCharCode(65 + (index % 26));

const Swatch = ({ tone, dash }) => html`<svg width="26" height="10" aria-hidden="true">
  <line x1="0" x2="26" y1="5" y2="5" stroke=${`var(--${tone})`} stroke-width="3" stroke-dasharray=${dash?.join(' ')} />
  </svg>`;

function Table({ times, series, shown }) {
  const rows = times.map((time, index) => [time, index]).slice(-60);
  return html`<details class="small"><summary>${t('chart.table')}</summary><div class="scroll" tabindex="0"
    role="region" aria-label=${t('chart.table')}><table>
    <thead><tr><th scope="col">${t('chart.time')}</th>${series.map((one) => html`<th scope="col" class="number">
      ${one.label}</th>`)}</tr></thead>
    <tbody>${rows.map(([time, index]) => html`<tr key=${time}><th scope="row">${when(time * 1000)}</th>
      ${series.map((one) => html`<td class="number">${shown(one.values[index])}</td>`)}</tr>`)}</tbody>
  </table></div></details>`;
}

function options(series, band, marks, shown, least, box) {
  const text = colour('text');
  const rule = colour('rule');
  const font = '13px system-ui, sans-serif';
  const axis = { stroke: text, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1 }, font };
  const span = (from, to) => (to - from > 2 * 86400 ? shortDay : to - from > 600 ? minute : clock);
  return {
    width: box.clientWidth, height: 240, cursor: { y: false }, legend: { show: false },
    scales: { x: { time: true, range: (_, from, to) => [from, Math.max(to, ...marks.map((mark) => mark.at))] }, y: { range: (_, low, high) => [Math.min(least ?? low, low ?? 0), (high || 1) * 1.08] } },
    axes: [
      { ...axis, values: (_, at) => at.map((seconds) => span(at[0], at[at.length - 1])(seconds * 1000)), space: 80 },
      { ...axis, values: (_, at) => at.map((value) => shown(value)), size: (_, said) => 24 + 8 * Math.max(4, ...(said ?? []).map((one) => one.length)) },
    ],
    series: [{}, ...series.map((one) => ({
      label: one.label, stroke: colour(one.tone), width: one.quiet ? 1 : 2, dash: one.dash, points: { show: !one.quiet && !one.flat && one.values.length < 80, size: 6 },
    }))],
    bands: band ? [{ series: [band[1] + 1, band[0] + 1], fill: colour('accent-soft') }] : [],
    hooks: { draw: [(plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.strokeStyle = text;
      ctx.fillStyle = text;
      ctx.font = `bold ${13 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.lineWidth = devicePixelRatio;
      marks.forEach((mark, index) => {
        const x = plot.valToPos(mark.at, 'x', true);
        if (x < bbox.left || x > bbox.left + bbox.width) return;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.fillText(letter(index), x - 4 * devicePixelRatio, bbox.top - 5 * devicePixelRatio);
      });
      ctx.restore();
    }] },
  };
}
