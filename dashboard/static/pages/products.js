// Change-over: what is judged now, since when, by whom, and what else is loaded.
import { html, useState } from '../html.js';
import { get, linePath, post } from '../api.js';
import { may, useAnswer, useChanged, usePage, useWork } from '../context.js';
import { score, t, when } from '../language.js';
import { Dialog } from '../parts/dialog.js';
import { Loading, Problem } from '../parts/problem.js';
import { Notice, State } from '../shapes.js';

export function Products() {
  const { line, session } = usePage();
  const { value: data, error, again } = useAnswer((signal) => get(linePath(line, '/products'), {}, signal), [line]);
  useChanged(['products', 'threshold'], again);
  const [asked, setAsked] = useState(null);
  const [said, setSaid] = useState(null);
  const [run, busy, failure] = useWork();
  const select = async () => {
    const answer = await run(() => post(linePath(line, '/products/select'), { product: asked }));
    if (answer) { setSaid(asked); setAsked(null); again(); }
  };
  return html`<header><h1 tabindex="-1">${t('products.title')}</h1></header>
    <${Problem} error=${error} again=${again} />
    ${!data && !error && html`<${Loading} />`}
    ${said && html`<${Notice} tone="pass" role="status"><p>${t('products.done', { product: said })}</p><//>`}
    ${data && html`
      <section class="panel stack tight"><h2>${t('products.now')}</h2><p class="figure">${data.now ?? data.engine ?? '–'}</p>
        <dl class="facts"><dt>${t('products.since')}</dt><dd>${when(data.since_at)}</dd><dt>${t('products.by')}</dt><dd>${data.by ?? t('products.by.unknown')}</dd><dt>${t('products.engine')}</dt><dd>${data.engine}</dd><dt>${t('threshold.now')}</dt><dd>${score(data.threshold)}</dd></dl></section>
      ${data.now === null ? html`<${Notice} tone="note"><p>${t('products.none')}</p><//>` : !data.control && html`<${Notice} tone="fault"><p>${t('error.no_control')}</p><//>`}
      ${data.now !== null && html`<ul class="three">${data.products.map((one) => html`<li key=${one.name} class="panel stack tight"><div class="row between"><h2>${one.name}</h2>${one.name === data.now && html`<${State} tone="pass" pill>${t('products.judged')}<//>`}</div>
        <dl class="facts"><dt>${t('products.engine')}</dt><dd>${one.engine}</dd><dt>${t('threshold.file')}</dt><dd>${one.calibration}</dd><dt>${t('products.threshold')}</dt><dd>${score(one.threshold)}</dd></dl>
        ${one.name !== data.now && may(session, 'change') && html`<button disabled=${!data.control} onClick=${() => setAsked(one.name)}>${t('products.select')}<span class="hidden"> ${one.name}</span></button>`}</li>`)}</ul>`}`}
    ${asked && html`<${Dialog} title=${t('products.ask', { product: asked })} close=${() => setAsked(null)}><p>${t('products.ask.hint', { now: data.now, product: asked })}</p>
      <${Problem} error=${failure} />
      <div class="row"><button class="main" disabled=${busy} onClick=${select}>${t('products.do', { product: asked })}</button><button onClick=${() => setAsked(null)}>${t('cancel')}</button></div><//>`}`;
}
