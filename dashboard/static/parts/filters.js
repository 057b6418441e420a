// What narrows the grid of rejects; everything chosen stands in the address, so that it can be sent to somebody.
import { html, useState } from '../html.js';
import { linePath } from '../api.js';
import { usePage } from '../context.js';
import { number, t, word } from '../language.js';
import { Place } from './place.js';

const LABELS = ['none', 'defect', 'false_reject', 'unsure', 'disputed'];
const SORTS = ['newest', 'oldest', 'highest', 'lowest'];
const DAY = 86400000;

// Times that people ask for, as [from, to] in ms.
export function span(name, now = Date.now(), shifts = []) {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  if (name === 'hour') return [now - 3600000, null];
  if (name === 'today') return [midnight, null];
  if (name === 'yesterday') return [new Date(midnight - DAY / 2).setHours(0, 0, 0, 0), midnight - 1];
  if (name === 'week') return [now - 7 * DAY, null];
  if (name === 'shift') {
    const starts = shifts.flatMap((one) => {
      const [hour, minute] = one.split(':').map(Number);
      return [new Date(now).setHours(hour, minute, 0, 0), new Date(now - DAY).setHours(hour, minute, 0, 0)];
    });
    return [Math.max(...starts.filter((at) => at <= now)), null];
  }
  return [null, null];
}

// The browser's own field writes local time without a zone.
const toField = (ms) => (ms ? new Date(Number(ms) - new Date(Number(ms)).getTimezoneOffset() * 60000).toISOString().slice(0, 16) : '');
const fromField = (text) => (text ? new Date(text).getTime() : null);

export function Filters({ choices, query, filter, sample, place = true }) {
  const { line, session } = usePage();
  const [chosen, setChosen] = useState(null);
  const select = (key, values, name = (one) => one, all = t('filter.all')) => values?.length > 0 && html`<label class="field"><span>${t(`filter.${key}`)}</span>
    <select value=${query[key] ?? ''} onChange=${(event) => filter({ [key]: event.target.value })}><option value="">${all}</option>
      ${values.map((one) => html`<option key=${one} value=${one}>${name(one)}</option>`)}</select></label>`;
  const field = (key, type, extra = {}) => html`<label class="field"><span>${t(`filter.${key}`)}</span>
    <input type=${type} value=${query[key] ?? ''} ...${extra} onChange=${(event) => filter({ [key]: event.target.value })} /></label>`;
  const time = (key) => html`<label class="field long"><span>${t(`filter.${key}`)}</span>
    <input type="datetime-local" value=${toField(query[key])} onChange=${(event) => { setChosen(null); filter({ [key]: fromField(event.target.value) }); }} /></label>`;
  const spans = ['hour', ...(session.shifts.length ? ['shift'] : []), 'today', 'yesterday', 'week', 'ever'];
  const camera = query.camera ?? choices.cameras[0];
  const [width, height] = choices.picture_size?.[camera] ?? [1000, 1000];
  const corners = query.peak?.split(',').map(Number);
  const background = choices.picture_size?.[camera] && linePath(line, `/cameras/${encodeURIComponent(camera)}/preview.jpg`);
  return html`<div class="stack">
    <fieldset><legend>${t('filter.time')}</legend><div class="row tight">${spans.map((one) => html`<button key=${one} aria-pressed=${chosen === one}
      onClick=${() => { const [from, to] = span(one, Date.now(), session.shifts); setChosen(one); filter({ from, to }); }}>${t(`filter.span.${one}`)}</button>`)}</div></fieldset>
    <div class="filters">
      ${time('from')}${time('to')}
      ${select('decision', ['reject', 'fault', 'pass'], (one) => t(`decision.${one}`), t('filter.rejects_only'))}
      ${select('camera', choices.cameras)}${select('product', choices.products)}
      ${select('label', LABELS, (one) => t(`label.${one}`))}${select('kind', choices.kinds)}
      ${select('reason', choices.reasons, (one) => word('reason', one))}
      ${choices.models?.length > 1 && select('model', choices.models)}
      ${field('score_min', 'number', { step: 'any', placeholder: number(choices.scores?.[0]) })}${field('score_max', 'number', { step: 'any', placeholder: number(choices.scores?.[1]) })}
      ${field('part', 'search')}
      ${select('sort', SORTS.slice(1), (one) => t(`sort.${one}`), t('sort.newest'))}
    </div>
    ${place && html`<${Place} picture=${background} size=${{ width, height }} onPlace=${(drawn) => filter({ peak: drawn && [drawn.x0, drawn.y0, drawn.x1, drawn.y1].join(',') })}
      place=${corners?.length === 4 ? { x0: corners[0], y0: corners[1], x1: corners[2], y1: corners[3] } : null} />`}
    ${Object.keys(query).length > 0 && html`<button onClick=${() => { setChosen(null); filter(Object.fromEntries(Object.keys(query).map((key) => [key, null]))); }}>${t('filter.clear')}</button>`}
  </div>`;
}
