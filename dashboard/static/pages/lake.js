// All plants: what the lake says of every line, by day; and one part by its id, wherever it was judged.
import { html, useState } from '../html.js';
import { address } from '../address.js';
import { get } from '../api.js';
import { useAnswer, usePage } from '../context.js';
import { number, percent, score, t, unit, when, word } from '../language.js';
import { Loading, Problem } from '../parts/problem.js';
import { Notice, Verdict } from '../shapes.js';

const REPORTS = ['rejects', 'places', 'latency', 'drift', 'part'];
const DAYS = 30;
const SHOWN = {
  rejects_share: (value) => percent(value), median_ms: (value) => unit(value, 'millisecond', 1),
  p99_ms: (value) => unit(value, 'millisecond', 1), longest_ms: (value) => unit(value, 'millisecond', 1),
  p99_s_to_hub: (value) => unit(value, 'second', 1), median_of_threshold: (value) => percent(value, 1),
  p99_of_threshold: (value) => percent(value, 1), since_first_day: signed, from_other_lines: signed,
  highest: score, score, threshold: score, captured_at: when, decision: (value) => html`<${Verdict} decision=${value} />`,
  reason: (value) => word('reason', value), seq: String, frame: String,
};
const LINKS = { plant: 'plant', line: 'of', day: 'day' };

function signed(value) {
  return value === null ? '–' : `${value > 0 ? '+' : ''}${percent(value, 1)}`;
}

const ago = (days) => new Date(Date.now() - days * 86400000).toISOString().slice(0, 10);

export function Lake() {
  const { line, rest, query, go } = usePage();
  const report = REPORTS.includes(rest) ? rest : 'rejects';
  const isPart = report === 'part';
  const since = query.since ?? (isPart ? undefined : ago(DAYS));
  const asked = { plant: query.plant, line: query.of, since, until: query.until, part: isPart ? query.part : undefined };
  const { value: data, error, loading, again } = useAnswer(
    (signal) => (isPart && !query.part ? Promise.resolve(null) : get(`/api/lake/${report}`, asked, signal)),
    [report, query.plant, query.of, since, query.until, asked.part],
  );
  const set = (changed) => go(address(line, 'lake', report, { ...query, ...changed }), { replace: true });
  const field = (key, type, value) => html`<label class="field"><span>${t(`lake.${key}`)}</span><input type=${type}
    value=${value ?? ''} placeholder=${type === 'text' ? t('filter.all') : undefined}
    onChange=${(event) => set({ [key]: event.target.value })} /></label>`;
  return html`<header><h1 tabindex="-1">${t('lake.title')}</h1><div class="segments" role="group"
      aria-label=${t('lake.report')}>${REPORTS.map((one) => html`<button key=${one} aria-pressed=${one === report}
      onClick=${() => go(address(line, 'lake', one, query))}>${t(`lake.${one}`)}</button>`)}</div></header>
    <div class="filters">${isPart && html`<${Part} id=${query.part} find=${(part) => set({ part })} />`}
      ${field('plant', 'text', query.plant)}${field('of', 'text', query.of)}
      <div class="row long">
      ${field('since', 'date', since)}${field('until', 'date', query.until)}</div></div>
    <${Problem} error=${error} again=${again} />
    ${loading && html`<${Loading} />`}
    ${!loading && !error && html`<${Table} report=${report} data=${data} narrow=${(column, value) => set(
      LINKS[column] === 'day' ? { since: value, until: value } : { [LINKS[column]]: value },
    )} />`}`;
}

function Part({ id, find }) {
  const [text, setText] = useState(id ?? '');
  return html`<form class="row long" onSubmit=${(event) => { event.preventDefault(); find(text.trim()); }}>
    <label class="field"><span>${t('lake.id')}</span><input value=${text} autocomplete="off"
      onInput=${(event) => setText(event.target.value)} /></label>
    <button class="main">${t('lake.find')}</button></form>`;
}

function Table({ report, data, narrow }) {
  if (!data?.rows.length) return html`<p class="empty">${t(report === 'part' && !data ? 'lake.ask' : 'lake.nothing')}</p>`;
  const numeric = data.columns.map((_, index) => data.rows.every((row) => row[index] === null || typeof row[index] === 'number'));
  const right = (index) => (numeric[index] && data.columns[index] !== 'captured_at' ? 'number nowrap' : 'nowrap');
  const shown = (column, value) => {
    if (value === null) return '–';
    if (column in SHOWN) return SHOWN[column](value);
    if (column in LINKS) return html`<button class="plain" onClick=${() => narrow(column, value)}>${value}</button>`;
    return typeof value === 'number' ? number(value) : value;
  };
  return html`<section class="panel stack">
    <h2>${t(`lake.${report}`)}</h2><p class="muted">${t(`lake.${report}.hint`)}</p>
    ${data.more && html`<${Notice}><p>${t('lake.more', { count: data.rows.length })}</p><//>`}
    <div class="scroll" tabindex="0" role="region" aria-label=${t(`lake.${report}`)}><table>
      <thead><tr>${data.columns.map((column, index) => html`<th key=${column} scope="col" class=${right(index)}>
        ${word('column', column)}</th>`)}</tr></thead>
      <tbody>${data.rows.map((row, place) => html`<tr key=${place}>${row.map((value, index) => html`<td
        key=${data.columns[index]} class=${right(index)}>${shown(data.columns[index], value)}</td>`)}</tr>`)}</tbody>
    </table></div></section>`;
}
