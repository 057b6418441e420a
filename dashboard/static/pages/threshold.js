// Choose the threshold and see first what it would have done.
import { html, useCallback, useEffect, useRef, useState } from '../html.js';
import { address } from '../address.js';
import { get, linePath, post } from '../api.js';
import { may, useAnswer, useChanged, usePage, useWork } from '../context.js';
import { clock, duration, number, percent, score, t, when } from '../language.js';

import { Histogram } from '../parts/histogram.js';
import { Thumbnail } from '../parts/picture.js';
import { Loading, Problem, sentence } from '../parts/problem.js';
import { Label, Notice, Shape, Verdict } from '../shapes.js';

const HOURS = [1, 8, 24, 168, 720];

export function Threshold() {
  const { line, query, go, session, live } = usePage();
  const hours = Number(query.hours ?? 24);
  const of = { hours, product: query.product, camera: query.camera };
  const asked = [line, hours, query.product, query.camera];
  const all = useAnswer((signal) => get(linePath(line, '/threshold'), of, signal), asked);
  const choices = useAnswer((signal) => get(linePath(line, '/filters'), {}, signal), [line]);
  useChanged(['threshold', 'proposals'], all.again);
  const data = all.value;
  const [value, setValue] = useState(null);
  const [preview, setPreview] = useState(null);
  const [more, setMore] = useState([]);
  const [applied, setApplied] = useState(null);
  const [run, busy, error] = useWork();
  const wanted = useRef(null);
  const asking = useRef(false);
  const tried = value ?? data?.threshold ?? null;

  // One question at a time: while one is open, only the newest place of the line is remembered.
  const ask = useCallback(async () => {
    if (asking.current) return;
    asking.current = true;
    try {
      for (let next = wanted.current; next !== null; next = wanted.current) {
        const answer = await get(linePath(line, '/threshold/preview'), { ...of, threshold: next });
        setPreview(answer);
        setMore([]);
        if (wanted.current === next) wanted.current = null;
      }
    } catch (failure) {
      wanted.current = null;
      setPreview({ error: failure });
    } finally {
      asking.current = false;
    }
  }, asked);
  useEffect(() => { if (tried !== null) { wanted.current = tried; ask(); } }, [tried, ask, data]);

  const shown = bins(data);
  const changed = data && tried !== null && Math.abs(tried - data.threshold) > 1e-9;
  const after = (answer) => {
    if (!answer) return;
    setApplied(answer);
    if (answer.applied) setValue(null);
    all.again();
  };
  const set = (key) => (event) => { setValue(null); go(`${address(line, 'threshold')}?${new URLSearchParams({ ...query, [key]: event.target.value })}`, { replace: true }); };
  const loadMore = async () => {
    const answer = await run(() => get(linePath(line, '/threshold/preview'), { ...of, threshold: preview.threshold, offset: preview.changing.length + more.length }));
    if (answer) setMore([...more, ...answer.changing]);
  };
  return html`<header><h1 tabindex="-1">${t('threshold.title')}</h1><div class="row">
      <label class="field"><span>${t('hours')}</span><select value=${hours} onChange=${set('hours')}>
        ${HOURS.map((one) => html`<option key=${one} value=${one}>${duration(one * 3600)}</option>`)}</select></label>
      ${choices.value?.products.length > 1 && html`<label class="field"><span>${t('filter.product')}</span><select
        value=${query.product ?? data?.product ?? ''} onChange=${set('product')}>
        ${choices.value.products.map((one) => html`<option key=${one}>${one}</option>`)}</select></label>`}
      ${choices.value?.cameras.length > 1 && html`<label class="field"><span>${t('filter.camera')}</span><select
        value=${query.camera ?? ''}
        onChange=${(event) => (event.target.value ? set('camera')(event) : go(address(line, 'threshold', '', { ...query, camera: '' }), { replace: true }))}>
        <option value="">${t('filter.all')}</option>${choices.value.cameras.map((one) => html`<option key=${one}>
        ${one}</option>`)}</select></label>`}
    </div></header>
    <${Problem} error=${all.error} again=${all.again} />
    ${!data && !all.error && html`<${Loading} />`}
    ${data && html`
      ${data.proposals.map((one) => html`<${Proposal}
        key=${one.id} proposal=${one} data=${data} after=${after} show=${() => setValue(one.threshold)} />`)}
      ${applied && html`<${Notice} tone=${applied.applied ? 'pass' : 'note'} role="status"><p>
        ${applied.applied ? t('threshold.applied', { threshold: score(applied.threshold) }) : applied.proposal ? t('threshold.proposed') : t('threshold.closed')} ${applied.said && html`<span class="muted">
        ${applied.said}</span>`}</p><//>`}
      <section class="panel stack" aria-label=${t('threshold.histogram')}>
        ${shown ? html`<${Histogram} ...${shown} now=${data.threshold} value=${tried}
          onValue=${setValue} />` : html`<p class="empty">${t('threshold.no_scores')}</p>`}
        <div class="legend" aria-hidden="true">
          <span><svg width="14" height="14"><rect width="14" height="14" class="passes" /></svg>
            ${t('threshold.legend.pass')}</span>
          <span><svg width="14" height="14"><rect width="14" height="14" fill="url(#hatch)" /></svg>
            ${t('threshold.legend.reject')}</span>
          ${data.tail && html`<span><svg width="26" height="10">
            <line x1="0" x2="26" y1="5" y2="5" stroke="var(--text)" stroke-width="2" stroke-dasharray="5 4" /></svg>
            ${t('threshold.legend.tail')}</span>`}
          <span><svg width="10" height="14">
            <line x1="5" x2="5" y1="0" y2="14" stroke="var(--text)" stroke-width="2" /></svg>
            ${t('threshold.legend.now', { threshold: score(data.threshold) })}</span>
        </div>
        <p class="outcome" aria-live="polite">
          <${Outcome} preview=${preview} hours=${hours} changed=${changed} data=${data} /></p>
      </section>
      <div class="two">
        <${Apply} data=${data}
          value=${tried} changed=${changed} setValue=${setValue} hours=${hours} after=${after} preview=${preview} />
        <section class="panel stack tight" aria-labelledby="calibration"><h2 id="calibration">
          ${t('threshold.calibration')}</h2><${Calibration} data=${data} after=${after} take=${setValue} /></section>
      </div>
      ${preview?.changing?.length > 0 && html`<section class="panel stack tight" aria-labelledby="changing">
        <h2 id="changing">${t('threshold.changing', { count: preview.changing_total })}</h2>
        <ul class="thumbs">${[...preview.changing, ...more].map((one) => html`<li key=${one.id}><a
          class="thumb" href=${address(line, 'rejects', one.id)}><${Thumbnail} line=${line} verdict=${one} />
          <span class="small"><b>${score(one.score)}</b><span class="muted">${clock(one.at)}</span></span>
          <span class="small">${one.score > preview.threshold ? html`<${Verdict}
            decision="reject" size="16" />` : html`<${Verdict} decision="pass" size="16" />`}</span>
          ${one.label && html`<span class="small"><${Label} label=${one.label} size="16" /></span>`}</a></li>`)}</ul>
        ${preview.changing.length + more.length < preview.changing_total && html`<button disabled=${busy}
          onClick=${loadMore}>${t('threshold.more')}</button>`}
        <${Problem} error=${error} /></section>`}`}`;
}

function Outcome({ preview, hours, changed, data }) {
  if (!preview || preview.error) return preview?.error ? sentence(preview.error) : t('loading');
  const span = duration(hours * 3600);
  if (!changed) return t('threshold.unchanged', { span, rejects: data.rejects, total: data.total });
  const said = preview.more_rejected > 0
    ? t('threshold.more_rejected', { span, count: preview.more_rejected, total: preview.total })
    : t('threshold.fewer_rejected', { span, count: preview.fewer_rejected, total: preview.total });
  return html`<b>${said}</b> ${preview.defects_passing > 0 && html`<span class="state tone-reject">
    <${Shape} of="reject" />${t('threshold.defects_passing', { count: preview.defects_passing })}</span> `}
    ${preview.false_rejects_passing > 0 && html`<span class="state tone-pass"><${Shape} of="pass" />
      ${t('threshold.false_passing', { count: preview.false_rejects_passing })}</span> `}
    ${preview.good_rejected > 0 && html`<span class="state tone-fault"><${Shape} of="fault" />
      ${t('threshold.good_rejected', { count: preview.good_rejected })}</span>`}`;
}

// The scores far beyond every threshold are put into the last bin: they would press all the others together.
function bins(data) {
  if (!data || data.edges.length < 2) return null;
  const { edges, pass, reject, threshold, calibrated, tail, passes } = data;
  const limit = Math.max(3 * threshold, 1.5 * (calibrated ?? 0));
  let last = edges.findIndex((edge) => edge >= limit);
  if (last < 2) last = edges.length - 1;
  const fold = (counts) => [...counts.slice(0, last - 1), counts.slice(last - 1).reduce((sum, count) => sum + count, 0)];
  const kept = edges.slice(0, last + 1);
  return { edges: kept, beyond: last < edges.length - 1, passes: fold(pass), rejects: fold(reject), tail: tail && expected(tail, kept, passes) };
}

// Good parts that the fitted tail expects in each bin.
function expected({ thresholds, rates }, edges, total) {
  const above = (at) => {
    if (at < thresholds[0] || at > thresholds[thresholds.length - 1]) return null;
    const right = Math.max(1, thresholds.findIndex((one) => one >= at));
    const share = (at - thresholds[right - 1]) / (thresholds[right] - thresholds[right - 1] || 1);
    return rates[right - 1] + share * (rates[right] - rates[right - 1]);
  };
  return edges.slice(1).map((edge, bin) => {
    const [from, to] = [above(edges[bin]), above(edge)];
    return from === null || to === null ? 0 : Math.max(0, from - to) * total;
  });
}

function Apply({ data, value, changed, setValue, hours, after, preview }) {
  const { line, session } = usePage();
  const [reason, setReason] = useState('');
  const [typed, setTyped] = useState(null);
  const [run, busy, error] = useWork();
  const send = async (event) => {
    event.preventDefault();
    const answer = await run(() => post(linePath(line, '/threshold'), { product: data.product, threshold: value, reason: reason.trim(), now: data.calibrated, hours }));
    if (answer) setReason('');
    after(answer);
  };
  const allowed = may(session, 'change');
  return html`<section class="panel" aria-labelledby="apply"><h2 id="apply">${t('threshold.apply')}</h2><form
    class="stack" onSubmit=${send}>
    <div class="row"><label class="field grow"><span>${t('threshold.value')}</span><input
      type="number" step="any" min="0" value=${typed ?? Number(value.toPrecision(6))}
      onInput=${(event) => { setTyped(event.target.value); const read = Number(event.target.value); if (event.target.value && Number.isFinite(read)) setValue(read); }} onBlur=${() => setTyped(null)} />
        </label>
      <button type="button" disabled=${!changed} onClick=${() => setValue(data.threshold)}>
        ${t('threshold.reset', { threshold: score(data.threshold) })}</button></div>
    ${allowed ? html`
      <label class="field"><span>${t('threshold.reason')}</span><textarea required minlength="3" maxlength="500"
        value=${reason} onInput=${(event) => setReason(event.target.value)}></textarea></label>
      ${!data.writable && html`<${Notice} tone="fault"><p>${sentence(data.reason)}</p><//>`}
      ${changed && preview?.needs_second && html`<${Notice} tone="fault"><p>${t('threshold.needs_second')}</p><//>`}
      <${Problem} error=${error} />
      <button class="main" disabled=${busy || !changed || !data.writable || reason.trim().length < 3}>
        ${changed && preview?.needs_second ? t('threshold.propose', { threshold: score(value) }) : t('threshold.do', { threshold: score(value) })}
        </button>`
      : html`<p class="muted">${t('error.role_needed', { role: t('role.change') })}</p>`}
  </form></section>`;
}

function Calibration({ data, after, take }) {
  const { line, session } = usePage();
  const [run, busy, error] = useWork();
  const { calibration, back, estimate } = data;
  const goBack = async () => after(await run(() => post(linePath(line, '/threshold/back'), { product: data.product, reason: '' })));
  return html`<dl class="facts">
      <dt>${t('threshold.now')}</dt><dd><b>${score(data.threshold)}</b></dd>
      ${data.calibrated !== null && data.calibrated !== data.threshold && html`<dt>${t('threshold.in_file')}</dt><dd>
        ${score(data.calibrated)}</dd>`}
      ${data.product && html`<dt>${t('fact.product')}</dt><dd>${data.product}</dd>`}<dt>${t('fact.model')}</dt><dd>
        ${data.model}</dd>
      ${calibration && html`<dt>${t('threshold.file')}</dt><dd>${calibration.file}</dd><dt>${t('threshold.made')}</dt>
        <dd>${when(calibration.made_at)}</dd>
        ${calibration.wanted_false_reject_rate !== null && html`<dt>${t('threshold.wanted')}</dt><dd>
          ${percent(calibration.wanted_false_reject_rate)}${calibration.interval && ` (${percent(calibration.interval[0])} – ${percent(calibration.interval[1])})`}</dd>`}
        ${estimate && html`<dt>${t('threshold.estimate')}</dt><dd>
          ${percent(estimate.rate)} (${percent(estimate.interval[0])} – ${percent(estimate.interval[1])})
          <br /><span class="muted">${t('threshold.estimate.of', { passes: number(estimate.passes), rejects: number(estimate.rejects) })}</span>
          <br /><button onClick=${() => take(estimate.threshold)}>
            ${t('threshold.estimate.show', { threshold: score(estimate.threshold) })}</button></dd>`}
        <dt>${t('threshold.good_images')}</dt><dd>${number(calibration.good_images)}</dd>
        ${calibration.changed && html`<dt>${t('threshold.changed')}</dt><dd>
          ${t('threshold.changed.by', { by: calibration.changed.by, time: when(calibration.changed.at), before: score(calibration.changed.before) })}
          <br /><span class="muted">${calibration.changed.reason}</span></dd>`}`}
    </dl>
    <${Problem} error=${error} />
    ${back && may(session, 'change') && html`<button disabled=${busy || !data.writable} onClick=${goBack}>
      ${t('threshold.back', { threshold: score(back.threshold) })}</button>
      <p class="small muted">
        ${t('threshold.back.of', { by: back.by ?? '–', time: when(back.at) })} ${back.reason}</p>`}`;
}

function Proposal({ proposal, data, after, show }) {
  const { line, session } = usePage();
  const [run, busy, error] = useWork();
  const answer = async (agree) => after(await run(() => post(linePath(line, `/threshold/proposals/${proposal.id}`), { agree })));
  const own = proposal.by === session.user;
  return html`<${Notice} tone="fault"><div class="stack tight"><p><b>
    ${t('proposal.title', { by: proposal.by, threshold: score(proposal.threshold), time: when(proposal.at) })}</b></p>
    <p>${t('proposal.defects', { count: proposal.defects })} ${t('proposal.reason', { reason: proposal.reason })}</p>
    ${own && html`<p>${t('proposal.own')}</p>`}
    <${Problem} error=${error} />
    <div class="row tight"><button onClick=${show}>${t('proposal.show')}</button>
      ${may(session, 'change') && !own && html`<button class="main" disabled=${busy} onClick=${() => answer(true)}>
        ${t('proposal.agree')}</button>`}
      ${may(session, 'change') && html`<button disabled=${busy} onClick=${() => answer(false)}>
        ${own ? t('proposal.withdraw') : t('proposal.refuse')}</button>`}</div></div><//>`;
}
