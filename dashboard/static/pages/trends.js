// How the line has done: share of rejects, scores, latency, faults; what changed as marks.
import { html, useEffect } from '../html.js';
import { address } from '../address.js';
import { get, linePath } from '../api.js';
import { useAnswer, usePage } from '../context.js';
import { duration, number, percent, score, t, unit, when, word } from '../language.js';
import { Chart } from '../parts/chart.js';
import { Loading, Problem } from '../parts/problem.js';
import { Notice } from '../shapes.js';

const SPANS = { 2: 'minute', 8: 'minute', 24: 'hour', 168: 'hour', 720: 'day', 2160: 'day' };
const REASON_TONES = ['reject', 'fault', 'accent', 'unknown', 'pass', 'text'];
const DASHES = [undefined, [8, 4], [2, 3], [12, 3, 2, 3], [5, 5], [1, 4]];

export function Trends() {
  const { line, query, go } = usePage();
  const hours = Number(query.hours ?? 24);
  const bucket = query.bucket ?? SPANS[hours] ?? 'hour';
  const of = { hours, bucket, camera: query.camera, product: query.product };
  const { value: data, error, again } = useAnswer((signal) => get(linePath(line, '/trends'), of, signal), [line, hours, bucket, query.camera, query.product]);
  const choices = useAnswer((signal) => get(linePath(line, '/filters'), {}, signal), [line]);
  const set = (changed) => go(address(line, 'trends', '', { ...query, ...changed }), { replace: true });
  // A line that began just now would be one point or two among hours.
  useEffect(() => {
    const judged = data && !query.hours ? data.share.findIndex((one) => one !== null) : -1;
    if (judged >= 0 && judged >= data.share.length - 2) set({ hours: 2 });
  }, [data]);
  const select = (key, values) => values?.length > 1 && html`<label class="field"><span>${t(`filter.${key}`)}</span>
    <select value=${query[key] ?? ''} onChange=${(event) => set({ [key]: event.target.value })}>
    <option value="">${t('filter.all')}</option>${values.map((one) => html`<option key=${one}>
      ${one}</option>`)}</select></label>`;
  return html`<header><h1 tabindex="-1">${t('trends.title')}</h1><div class="row">
      <label class="field"><span>${t('hours')}</span><select value=${hours}
        onChange=${(event) => set({ hours: event.target.value, bucket: null })}>
        ${Object.keys(SPANS).map((one) => html`<option key=${one} value=${one}>
        ${duration(one * 3600)}</option>`)}</select></label>
      <label class="field"><span>${t('trends.bucket')}</span><select value=${bucket}
        onChange=${(event) => set({ bucket: event.target.value })}>
        ${['minute', 'hour', 'shift', 'day'].filter((one) => one !== 'minute' || hours <= 24).map((one) => html`<option key=${one} value=${one}>
        ${t(`trends.bucket.${one}`)}</option>`)}</select></label>
      ${select('camera', choices.value?.cameras)}${select('product', choices.value?.products)}</div></header>
    <${Problem} error=${error} again=${again} />
    ${!data && !error && html`<${Loading} />`}
    ${data && html`<${Charts} data=${data} />`}`;
}

function Charts({ data }) {
  const times = data.at.map((at) => at / 1000);
  const marks = data.marks.map((mark) => ({ at: mark.at / 1000, text: markText(mark) }));
  const same = (value) => times.map(() => value);
  const milliseconds = (value) => unit(value, 'millisecond', 1);
  const outside = data.outside.map((index) => when(data.at[index]));
  const reasons = Object.entries(data.reasons ?? {}).filter(([, counts]) => counts.some(Boolean));
  return html`
    ${outside.length > 0 && html`<${Notice} tone="fault"><p>
      ${t('trends.outside', { count: outside.length, times: outside.slice(-3).join(', ') })}</p><//>`}
    <div class="two charts">
    <${Chart} title=${t('trends.share')} times=${times} marks=${marks} shown=${(value) => percent(value)} band=${[0, 1]} series=${[
      { label: t('trends.lower'), values: data.lower, tone: 'muted', dash: [4, 4], quiet: true },
      { label: t('trends.upper'), values: data.upper, tone: 'muted', dash: [4, 4], quiet: true },
      { label: t('trends.centre', { factor: number(data.overdispersion, 1) }), values: same(data.centre), tone: 'text', dash: [10, 4], flat: true },
      { label: t('trends.share.series'), values: data.share, tone: 'reject' },
    ]} />
    <${Chart} title=${t('trends.scores')} times=${times} marks=${marks} shown=${score} band=${[0, 1]} series=${[
      { label: t('trends.q25'), values: data.q25, tone: 'muted', quiet: true },
      { label: t('trends.q75'), values: data.q75, tone: 'muted', quiet: true },
      ...(data.calibration?.median ? [{ label: t('trends.calibration'), values: same(data.calibration.median), tone: 'text', dash: [10, 4], flat: true }] : []),
      ...(data.calibration?.threshold ? [{ label: t('trends.threshold'), values: same(data.calibration.threshold), tone: 'reject', dash: [3, 3], flat: true }] : []),
      { label: t('trends.median'), values: data.median, tone: 'accent' },
    ]} />
    <${Chart} title=${t('trends.latency')} times=${times} marks=${marks} shown=${milliseconds} series=${[
      { label: t('trends.latency.median'), values: data.latency.median, tone: 'accent' },
      { label: t('trends.latency.p99'), values: data.latency.p99, tone: 'fault', dash: [8, 4] },
      { label: t('trends.latency.longest'), values: data.latency.longest, tone: 'muted', dash: [2, 3] },
    ]} />
    ${reasons.length ? html`<${Chart} title=${t('trends.faults')} times=${times} marks=${marks} shown=${number} series=${reasons.map(([reason, counts], index) => ({
      label: word('reason', reason), values: counts, tone: REASON_TONES[index % 6], dash: DASHES[index % 6] }))} />`
      : html`<section class="panel"><h2>${t('trends.faults')}</h2><p class="empty">
        ${t('trends.no_faults')}</p></section>`}
  </div>`;
}

function markText({ code, values = {}, detail }) {
  const said = t(`mark.${code}`, { by: '–', ...Object.fromEntries(Object.entries(values).map(([key, value]) => [key, typeof value === 'number' ? score(value) : value ?? '–'])) });
  return detail ? `${said} (${detail})` : said;
}
