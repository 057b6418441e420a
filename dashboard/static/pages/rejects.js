// All rejects: a grid of any length, filters, and one reject in detail.
import { html, useCallback, useEffect, useState } from '../html.js';
import { address } from '../address.js';
import { get, linePath, post, search } from '../api.js';
import { may, useAnswer, useChanged, usePage, useWork } from '../context.js';
import { clock, score, t } from '../language.js';
import { Dialog } from '../parts/dialog.js';
import { Around, Facts } from '../parts/facts.js';
import { Filters } from '../parts/filters.js';
import { Frames } from '../parts/frames.js';
import { Grid } from '../parts/grid.js';
import { Judge } from '../parts/judge.js';
import { Thumbnail } from '../parts/picture.js';
import { Loading, Problem } from '../parts/problem.js';
import { Icon, Label, Shape, Verdict } from '../shapes.js';

const POLL_MS = 10000;

export function Rejects() {
  const { line, go, rest: id, query } = usePage();
  const filters = useAnswer((signal) => get(linePath(line, '/filters'), {}, signal), [line]);
  const key = search(query);
  const first = useAnswer((signal) => get(linePath(line, '/verdicts'), { ...query, offset: 0, limit: 120 }, signal), [line, key]);
  const [newer, setNewer] = useState(0);
  const [open, setOpen] = useState(false);
  const [place, setPlace] = useState(null); // {id, index}: where in the list the part lies that is shown in detail
  const [labels, setLabels] = useState({}); // given here since the rows came
  const list = first.value;
  const known = list?.items.findIndex((one) => one.id === id) ?? -1; // of one that a link leads to
  const index = place?.id === id ? place.index : known >= 0 ? known : null;

  useEffect(() => {
    setNewer(0);
    if (!list) return undefined;
    const timer = setInterval(async () => {
      if (document.hidden) return;
      const answer = await get(linePath(line, '/verdicts'), { ...query, limit: 1, upto: list.upto }).catch(() => null);
      if (answer) setNewer(answer.newer);
    }, POLL_MS);
    return () => clearInterval(timer);
  }, [list]);

  const load = useCallback(async (offset, limit) => {
    if (offset === 0) return list.items;
    return (await get(linePath(line, '/verdicts'), { ...query, offset, limit, upto: list.upto })).items;
  }, [list]);
  const show = (row, at) => { setPlace({ id: row.id, index: at }); go(address(line, 'rejects', row.id, query)); };
  const step = async (to) => {
    const [row] = (await get(linePath(line, '/verdicts'), { ...query, offset: to, limit: 1, upto: list.upto })).items;
    if (row) { setPlace({ id: row.id, index: to }); go(address(line, 'rejects', row.id, query), { replace: true }); }
  };
  const filter = (changed) => go(address(line, 'rejects', '', { ...query, ...changed }), { replace: true });
  const item = (row) => {
    const { label, kind } = labels[row.id] ?? row;
    return html`<${Thumbnail} line=${line} verdict=${row} /><span class="small"><b>${score(row.score)}</b><span
      class="muted">${clock(row.at)}</span></span>
      <span class="small">${row.decision !== 'reject' ? html`<${Verdict}
        decision=${row.decision} size="16" />` : label ? html`<${Label} label=${label} size="16" />` : html`<span
        class="muted">${row.camera}</span>`}${kind && html`<span class="muted">${kind}</span>`}</span>`;
  };
  const count = Object.keys(query).filter((one) => one !== 'sort').length;
  return html`<header><h1 tabindex="-1">${t('rejects.title')}</h1>
      <div class="row"><span role="status"><b>${list ? t('rejects.count', { count: list.total }) : ''}</b></span>
        ${newer > 0 && html`<button onClick=${first.again}>${t('rejects.newer', { count: newer })}</button>`}
        <button aria-expanded=${open} aria-controls="filters" class="filter-button" onClick=${() => setOpen(!open)}>
          ${count ? t('filter.open.count', { count }) : t('filter.open')}</button></div></header>
    <${Problem} error=${first.error ?? filters.error} again=${first.again} />
    <div class="rejects">
      <section id="filters" class=${`panel filter-panel ${open ? 'open' : ''}`} aria-label=${t('filter.title')}>
        ${filters.value && html`<${Filters} choices=${filters.value} query=${query} filter=${filter} sample=${list?.items.find((one) => one.pictures)} />`}
          </section>
      ${list && (list.total ? html`<${Grid}
        key=${`${key}${list.upto}`} count=${list.total} load=${load} item=${item} open=${show} />`
        : html`<div class="panel empty"><${Shape} of="unknown" size="40" /><p>
          ${count ? t('rejects.none_filtered') : t('rejects.none')}</p>
          ${count > 0 && html`<button onClick=${() => go(address(line, 'rejects'))}>
            ${t('filter.clear')}</button>`}</div>`)}
      ${!list && !first.error && html`<${Loading} />`}
    </div>
    ${id && html`<${Dialog}
      key="detail" wide title=${t('detail.title')} close=${() => id && location.pathname.includes(id) && go(address(line, 'rejects', '', query), { replace: true })}>
      <${Detail} id=${id} query=${query} labelled=${(all) => setLabels((before) => ({ ...before, ...Object.fromEntries(all.map((one) => [one.id, one])) }))}
        previous=${index > 0 && list ? () => step(index - 1) : null} next=${index !== null && list && index + 1 < list.total ? () => step(index + 1) : null} />
          <//>`}`;
}

function Detail({ id, query, labelled, previous, next }) {
  const { line, session } = usePage();
  const detail = useAnswer((signal) => get(linePath(line, `/verdicts/${encodeURIComponent(id)}`), {}, signal), [line, id]);
  const [run, busy, error] = useWork();
  useChanged(['labels'], detail.again);
  const own = detail.value?.opinions?.find((one) => one.user === session.user);
  const judge = async (label, kind) => {
    const answer = await run(() => post(linePath(line, '/labels'), { ids: [id], label, kind, note: '' }));
    if (answer) { labelled(answer.labelled); detail.again(); }
  };
  return html`<div class="row between"><div class="row tight">
      <button disabled=${!previous} onClick=${previous}><${Icon} of="previous" />${t('detail.previous')}</button>
        <button disabled=${!next} onClick=${next}>${t('detail.next')}<${Icon} of="next" /></button></div>
      ${detail.value?.verdict.label && html`<span class="row tight">
        <${Label} label=${detail.value.verdict.label} pill />${detail.value.verdict.kind}</span>`}</div>
    <${Problem} error=${detail.error ?? error} />
    ${detail.value && detail.value.verdict.id === id ? html`
      <div class="review"><${Frames} detail=${detail.value} />
        <div class="stack"><${Facts} detail=${detail.value} />
          ${may(session, 'judge') && html`<${Judge}
            decision=${detail.value.verdict.decision} label=${own?.label} kind=${own?.kind} kinds=${session.kinds} judge=${judge} busy=${busy} keys=${false} />`}
          ${own && html`<button class="plain" onClick=${() => judge(null, null)}>
            ${t('judge.take_back')}</button>`}</div></div>
      <${Around} line=${line} detail=${detail.value} query=${query} />`
      : !detail.error && html`<${Loading} />`}`;
}
