// Rejects and labels for others: a zip with hashes, folders for calibrate and train-model, and the commands that go on from there.
import { html, useEffect, useState } from '../html.js';
import { get, linePath, post, remove } from '../api.js';
import { may, useAnswer, usePage, useWork } from '../context.js';
import { number, percent, t, unit, word } from '../language.js';
import { Filters } from '../parts/filters.js';
import { Loading, Problem, sentence } from '../parts/problem.js';
import { Notice, State } from '../shapes.js';

const OPEN = ['waiting', 'running'];
const TONES = { waiting: 'unknown', running: 'note', done: 'pass', failed: 'reject', stopped: 'unknown' };

export function Export() {
  const { line, session } = usePage();
  const [query, setQuery] = useState({});
  const filters = useAnswer((signal) => get(linePath(line, '/filters'), {}, signal), [line]);
  const commands = useAnswer((signal) => get(linePath(line, '/commands'), {}, signal), [line]);
  const jobs = useAnswer((signal) => get('/api/jobs', {}, signal), [line]);
  const given = Object.fromEntries(Object.entries(query).filter(([, value]) => value !== null && value !== ''));
  const found = useAnswer((signal) => get(linePath(line, '/verdicts'), { ...given, limit: 1 }, signal), [line, JSON.stringify(given)]);
  const [run, busy, error] = useWork();
  const own = jobs.value?.jobs.filter((one) => one.line === line) ?? [];
  const busyJob = own.some((one) => OPEN.includes(one.state));
  useEffect(() => {
    if (!busyJob) return undefined;
    const timer = setInterval(jobs.again, 700);
    return () => clearInterval(timer);
  }, [busyJob, jobs.again]);
  const start = async (path, body) => { if (await run(() => post(linePath(line, path), body))) jobs.again(); };
  return html`<header><h1 tabindex="-1">${t('export.title')}</h1></header>
    <${Problem} error=${error ?? filters.error ?? jobs.error} />
    ${own.length > 0 && html`<section class="panel stack tight" aria-labelledby="jobs"><h2 id="jobs">${t('export.jobs')}</h2><ul class="stack tight">${own.map((one) => html`<${Job} key=${one.id} job=${one} again=${jobs.again} />`)}</ul></section>`}
    <div class="two">
      <section class="panel stack" aria-labelledby="export-pictures"><h2 id="export-pictures">${t('export.pictures')}</h2>
        ${filters.value ? html`<${Filters} choices=${filters.value} query=${query} place=${false} filter=${(changed) => setQuery({ ...query, ...changed })} />` : html`<${Loading} />`}
        <p role="status"><b>${found.value ? t('export.count', { count: found.value.total }) : ''}</b></p>
        <div class="stack tight"><button class="main" disabled=${busy} onClick=${() => start('/exports', { format: 'zip', ...given })}>${t('export.zip')}</button><p class="small muted">${t('export.zip.hint')}</p>
          <button disabled=${busy} onClick=${() => start('/exports', { format: 'folders', ...given })}>${t('export.folders')}</button><p class="small muted">${t('export.folders.hint')}</p></div></section>
      <section class="panel stack" aria-labelledby="export-commands"><h2 id="export-commands">${t('export.commands')}</h2>
        <${Problem} error=${commands.error} />
        ${commands.value && html`<p>${t('export.labelled', { good: commands.value.good, defects: Object.values(commands.value.defects).reduce((sum, count) => sum + count, 0) })}</p>
          ${Object.keys(commands.value.defects).length > 0 && html`<dl class="facts">${Object.entries(commands.value.defects).map(([kind, count]) => html`<dt key=${kind}>${kind}</dt><dd>${number(count)}</dd>`)}</dl>`}
          ${commands.value.commands.map((one) => html`<div class="stack tight" key=${one.name}><h3>${t(`export.${one.name}`)}</h3><p class="small muted">${t(`export.${one.name}.hint`)}</p>
            <pre tabindex="0" aria-label=${t(`export.${one.name}`)}>${one.text}</pre>
            <div class="row tight"><${Copy} text=${one.text} name=${t(`export.${one.name}`)} />
              ${may(session, 'change') && html`<button disabled=${busy || !one.runs_here} onClick=${() => start(`/commands/${one.name}`, {})}>${t('export.run')}<span class="hidden"> ${t(`export.${one.name}`)}</span></button>`}</div>
            ${!one.runs_here && one.reason && html`<p class="small muted">${sentence(one.reason)}</p>`}</div>`)}`}</section>
    </div>`;
}

function Copy({ text, name }) {
  const [copied, setCopied] = useState(false);
  if (!navigator.clipboard) return null; // only over TLS or on this machine
  return html`<button onClick=${() => navigator.clipboard.writeText(text).then(() => setCopied(true), () => {})}>${copied ? t('export.copied') : t('export.copy')}<span class="hidden"> ${name}</span></button>`;
}

function Job({ job, again }) {
  const [run, busy, error] = useWork();
  return html`<li class="job stack tight"><div class="row between"><b>${word('job', job.what)}</b><${State} tone=${TONES[job.state]} pill>${t(`job.state.${job.state}`)}<//></div>
    ${OPEN.includes(job.state) && html`<progress max=${job.total || 1} value=${job.total ? job.done : undefined} aria-label=${word('job', job.what)}></progress>`}
    <div class="row between"><span class="small muted">${job.total ? t('job.progress', { done: job.done, total: job.total }) : ''} ${job.text ?? ''}</span>
      ${job.state === 'done' && job.result && html`<a class="button" href=${job.result} download>${t('job.download', { size: unit((job.bytes ?? 0) / 1e6, 'megabyte', 1) })}</a>`}
      ${OPEN.includes(job.state) && html`<button disabled=${busy} onClick=${async () => { await run(() => remove(`/api/jobs/${job.id}`)); again(); }}>${t('job.stop')}</button>`}</div>
    ${job.error && html`<${Notice} tone="fault"><p>${typeof job.error === 'string' ? job.error : sentence(job.error)}</p><//>`}
    <${Problem} error=${error} /></li>`;
}
