// Judge rejects one after the other with the keyboard: 1 defect, 2 false reject, 3 unsure, U takes the last one back.
import { html, useCallback, useEffect, useRef, useState } from '../html.js';
import { get, linePath, post, search } from '../api.js';
import { may, useAnswer, usePage, useWork } from '../context.js';
import { number, t } from '../language.js';
import { Facts } from '../parts/facts.js';
import { Frames } from '../parts/frames.js';
import { Judge, KINDS_KEYS, LABELS } from '../parts/judge.js';
import { Loading, Problem } from '../parts/problem.js';
import { Notice, Shape } from '../shapes.js';

const KEYS = 'inspectd.keys';
const POLL_MS = 5000;

export function Review() {
  const { line, session, query, go } = usePage();
  const opinion = query.opinion === 'second' ? 'second' : 'first';
  const allowed = may(session, 'judge');
  const [queue, setQueue] = useState(null); // {left, items}
  const [undo, setUndo] = useState([]); // what U takes back, last one last
  const [keys, setKeys] = useState(localStorage.getItem(KEYS) !== 'off');
  const [kinds, setKinds] = useState(session.kinds);
  const [done, setDone] = useState(0);
  const [said, setSaid] = useState('');
  const [run, , error] = useWork();
  const summary = useAnswer((signal) => get(linePath(line, '/labels/summary'), {}, signal), [line, done]);

  const fill = useCallback(async () => {
    const answer = await run(() => get(linePath(line, '/review'), { ...query, opinion, limit: 20 }));
    if (answer) setQueue(answer);
  }, [line, opinion, search(query)]);
  useEffect(() => {
    setQueue(null);
    setUndo([]);
    if (allowed) fill();
  }, [fill, allowed]);
  useEffect(() => { if (summary.value) setKinds([...new Set([...session.kinds, ...Object.keys(summary.value.kinds)])]); }, [summary.value]);

  const current = queue?.items[0] ?? null;
  const waits = queue && !current;
  useEffect(() => {
    if (!waits) return undefined;
    const timer = setInterval(() => document.hidden || fill(), POLL_MS);
    return () => clearInterval(timer);
  }, [waits, fill]);
  const detail = useAnswer(
    (signal) => (current ? get(linePath(line, `/verdicts/${current.id}`), { blind: opinion === 'second' }, signal) : Promise.resolve(null)),
    [current?.id, opinion],
  );
  // The next one is asked for now, so that its pictures are there when it is its turn.
  useEffect(() => {
    const next = queue?.items[1];
    if (!next?.pictures) return;
    for (const name of ['frame.png', 'overlay.jpg']) new Image().src = linePath(line, `/verdicts/${next.id}/${name}`);
  }, [queue]);

  // The next part is shown at once; answers are sent in their order behind it, so that no key is lost.
  const sending = useRef(Promise.resolve());
  const send = (work) => { sending.current = sending.current.then(work); };
  const putBack = (part) => part && setQueue((before) => ({
    left: (before?.left ?? 0) + 1, items: [part, ...(before?.items ?? []).filter((one) => one.id !== part.id)],
  }));
  const judge = (label, kind) => {
    if (!current) return;
    const rest = queue.items.slice(1);
    setQueue({ left: Math.max(0, queue.left - 1), items: rest });
    setUndo((before) => [...before, current]);
    setSaid(t('review.said', { label: kind ? `${t(`label.${label}`)}, ${kind}` : t(`label.${label}`), left: queue.left - 1 }));
    send(async () => {
      if (await run(() => post(linePath(line, '/labels'), { ids: [current.id], label, kind, note: '' }))) return setDone((n) => n + 1);
      setUndo((before) => before.filter((one) => one !== current));
      return putBack(current);
    });
    if (!rest.length) send(fill);
  };
  const back = () => {
    const last = undo[undo.length - 1];
    setUndo((before) => before.slice(0, -1));
    putBack(last);
    send(async () => {
      const answer = await run(() => post(linePath(line, '/labels/undo')));
      if (!answer) return last && setQueue((before) => ({ left: before.left - 1, items: before.items.filter((one) => one !== last) }));
      if (!last) putBack(answer.undone[0]);
      setDone((n) => n + 1);
      return setSaid(t('review.undone'));
    });
  };
  const act = useRef(null);
  act.current = (event) => {
    if (!keys || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest?.('input, select, textarea, dialog, [contenteditable]') && event.target.type !== 'checkbox' && event.target.type !== 'range') return;
    const key = event.key.toLowerCase();
    const kind = kinds[KINDS_KEYS.indexOf(key)];
    if ('123'.includes(key)) judge(LABELS[Number(key) - 1], null);
    else if (key === 'u') back();
    else if (kind && KINDS_KEYS.includes(key)) judge('defect', kind);
    else return;
    event.preventDefault();
  };
  useEffect(() => {
    const listener = (event) => act.current(event);
    addEventListener('keydown', listener);
    return () => removeEventListener('keydown', listener);
  }, []);

  const head = html`<header><h1 tabindex="-1">${t('review.title')}</h1>
    <div class="row"><div class="segments" role="group" aria-label=${t('review.opinion')}>${['first', 'second'].map((one) => html`<button key=${one} aria-pressed=${one === opinion}
      onClick=${() => go(`${location.pathname}${search({ ...query, opinion: one })}`, { replace: true })}>${t(`review.${one}`)}</button>`)}</div></div></header>`;
  if (!allowed) return html`${head}<${Notice} tone="unknown"><p>${t('error.role_needed', { role: t('role.judge') })}</p><//>`;
  const judged = summary.value ? summary.value.defect + summary.value.false_reject + summary.value.unsure + summary.value.disputed : 0;
  return html`${head}
    <${Problem} error=${error ?? detail.error} again=${fill} />
    <div class="hidden" role="status">${said}</div>
    ${queue && html`<div class="stack tight"><div class="row between"><b class="left">${t('review.left', { count: queue.left })}</b>
      ${summary.value && html`<span class="muted small">${t('review.summary', { defect: summary.value.defect, false_reject: summary.value.false_reject, unsure: summary.value.unsure, disputed: summary.value.disputed })}</span>`}</div>
      <progress max=${judged + queue.left || 1} value=${judged} aria-label=${t('review.progress')}></progress></div>`}
    ${!queue && !error && html`<${Loading} />`}
    ${queue && !current && html`<div class="panel empty"><${Shape} of="pass" size="44" /><p><b>${t(`review.empty.${opinion}`)}</b></p><p>${t('review.empty.hint')}</p>
      <button onClick=${back}><kbd aria-hidden="true">U</kbd>${t('review.undo')}</button></div>`}
    ${current && html`<div class="review">
      <section class="panel" aria-label=${t('detail.title')}>${detail.value?.verdict.id === current.id ? html`<${Frames} detail=${detail.value} />` : html`<${Loading} />`}</section>
      <section class="panel stack" aria-label=${t('judge.title')}>
        ${opinion === 'second' && html`<${Notice} tone="note"><p>${t('review.blind')}</p><//>`}
        <${Judge} decision=${current.decision} kinds=${kinds} judge=${judge} keys=${keys} />
        <button onClick=${back}>${keys && html`<kbd aria-hidden="true">U</kbd>`}${t('review.undo')}</button>
        <label class="tick"><input type="checkbox" checked=${keys} onChange=${() => { setKeys(!keys); localStorage.setItem(KEYS, keys ? 'off' : 'on'); }} />${t('review.keys')}</label>
        ${detail.value?.verdict.id === current.id && html`<${Facts} detail=${detail.value} />`}
      </section></div>`}`;
}
