// What is wrong: the first cause first, since when, and what to do.
import { html, useEffect, useState } from '../html.js';
import { get, linePath, post } from '../api.js';
import { may, useAnswer, useChanged, usePage, useWork } from '../context.js';
import { duration, t, when } from '../language.js';
import { Loading, Problem } from '../parts/problem.js';
import { causeText } from '../parts/sentence.js';
import { Shape, State } from '../shapes.js';

const TONES = { stops: 'reject', degrades: 'fault', watch: 'note' };
const toDo = (code) => { const key = `cause.${code}.do`; const text = t(key); return text === key ? t('cause.other.do') : text; };

export function HealthPage() {
  const { line } = usePage();
  const { value: data, error, again } = useAnswer((signal) => get(linePath(line, '/health'), { days: 7 }, signal), [line]);
  useChanged(['health'], again);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || again(), 5000);
    return () => clearInterval(timer);
  }, [again]);
  return html`<header><h1 tabindex="-1">${t('health.title')}</h1></header>
    <${Problem} error=${error} again=${again} />
    ${!data && !error && html`<${Loading} />`}
    ${data && html`
      ${data.causes.length === 0 && html`<div class="sentence tone-pass"><${Shape} of="pass" /><p>
        ${t('health.none')}</p></div>`}
      <ol class="stack">${data.causes.map((cause, index) => html`<${Cause}
        key=${cause.key} cause=${cause} first=${index === 0} again=${again} />`)}</ol>
      <section class="panel"><h2>${t('health.history')}</h2>${data.history.length ? html`<div
        class="scroll" tabindex="0" role="region" aria-label=${t('health.history')}><table>
        <thead><tr><th scope="col">${t('health.what')}</th><th scope="col">${t('health.since')}</th><th scope="col">
          ${t('health.until')}</th><th scope="col">${t('health.lasted')}</th><th scope="col">
          ${t('health.acknowledged')}</th></tr></thead>
        <tbody>${data.history.map((one) => html`<tr key=${`${one.key}${one.since_at}`}><td>
          ${causeText(one)}${one.detail && html`<br /><span class="small muted">${one.detail}</span>`}</td>
          <td class="nowrap">${when(one.since_at)}</td><td class="nowrap">
            ${one.until_at ? when(one.until_at) : t('health.still')}</td><td class="nowrap">
            ${one.until_at ? duration((one.until_at - one.since_at) / 1000) : ''}</td>
          <td>${one.acknowledged ? `${one.acknowledged.by} ${one.acknowledged.note ?? ''}` : ''}
            </td></tr>`)}</tbody></table></div>` : html`<p class="muted">${t('health.no_history')}</p>`}</section>`}`;
}

function Cause({ cause, first, again }) {
  const { line, session } = usePage();
  const [open, setOpen] = useState(false);
  const [note, setNote] = useState('');
  const [run, busy, error] = useWork();
  const tone = TONES[cause.severity] ?? 'unknown';
  const send = async (event) => {
    event.preventDefault();
    if (await run(() => post(linePath(line, '/health/acknowledge'), { key: cause.key, note }))) { setOpen(false); again(); }
  };
  return html`<li class=${`panel cause stack tight tone-${tone} ${cause.follows ? 'follows' : ''}`}>
    <div class="row between"><h2 class="row tight"><${Shape} of=${tone} size="28" />${causeText(cause)}</h2>
      <${State} tone=${tone} pill>${t(`severity.${cause.severity}`)}<//></div>
    <p class="muted">${t('health.since.time', { time: when(cause.since_at), duration: duration(Math.max(0, (Date.now() - cause.since_at) / 1000)) })}${cause.follows ? ` · ${t('health.follows')}` : first ? ` · ${t('health.first')}` : ''}</p>
    ${cause.detail && html`<pre>${cause.detail}</pre>`}
    <p><b>${t('health.do')}</b> ${toDo(cause.code)}</p>
    <${Problem} error=${error} />
    ${cause.acknowledged ? html`<p class="row tight"><${State} tone="pass" size="18">
      ${t('health.acknowledged.by', { by: cause.acknowledged.by, time: when(cause.acknowledged.at) })}<//><span
      class="muted">${cause.acknowledged.note}</span></p>`
      : may(session, 'judge') && (open ? html`<form class="row" onSubmit=${send}><label class="field grow"><span>
        ${t('health.note')}</span><input value=${note} maxlength="500" autofocus
        onInput=${(event) => setNote(event.target.value)} /></label>
        <button class="main" disabled=${busy}>${t('health.acknowledge')}</button><button type="button"
          onClick=${() => setOpen(false)}>${t('cancel')}</button></form>`
        : html`<div><button onClick=${() => setOpen(true)}>${t('health.acknowledge')}</button></div>`)}
  </li>`;
}
