// What is known of a verdict, and what people said about it.
import { html } from '../html.js';
import { address } from '../address.js';
import { clock, score, t, unit, when, word } from '../language.js';
import { Label, Verdict } from '../shapes.js';
import { Thumbnail } from './picture.js';

export function Facts({ detail }) {
  const { verdict, latency, boot, seq, opinions } = detail;
  const fact = (name, value) => value !== null && value !== undefined && value !== '' && html`<dt>${t(name)}</dt><dd>${value}</dd>`;
  return html`<dl class="facts">
    ${fact('fact.decision', html`<${Verdict} decision=${verdict.decision} />`)}
    ${fact('fact.reason', verdict.reason && word('reason', verdict.reason))}
    ${fact('fact.score', html`<b>${score(verdict.score)}</b> / ${score(verdict.threshold)}`)}
    ${fact('fact.time', when(verdict.at))}
    ${fact('fact.camera', verdict.camera)}
    ${fact('fact.part', verdict.part)}
    ${fact('fact.product', verdict.product)}
    ${fact('fact.model', verdict.model)}
    ${fact('fact.peak', verdict.peak && `x ${verdict.peak.x}, y ${verdict.peak.y}`)}
    ${fact('fact.latency', t('fact.latency.parts', { total: unit(latency.total, 'millisecond', 1), wait: unit(latency.wait, 'millisecond', 1), infer: unit(latency.infer, 'millisecond', 1) }))}
    ${fact('fact.id', html`<code>${boot}-${seq}</code>`)}
    ${opinions?.map((one) => html`<dt>${one.user}</dt><dd><${Label} label=${one.label} /> ${one.kind ?? ''} <span class="muted">${when(one.at)} ${one.note ?? ''}</span></dd>`)}
  </dl>`;
}

export const Around = ({ line, detail, query }) => detail.around?.length > 1 && html`<section class="stack tight">
  <h3>${t('detail.around')}</h3>
  <ol class="filmstrip">${detail.around.map((one) => html`<li key=${one.id}><a class="thumb" href=${address(line, 'rejects', one.id, query)} aria-current=${one.id === detail.verdict.id ? 'true' : undefined}>
    <${Thumbnail} line=${line} verdict=${one} size=${120} /><span class="small"><${Verdict} decision=${one.decision} size="16" /></span><span class="small muted"><span>${clock(one.at)}</span><span>${score(one.score)}</span></span></a></li>`)}</ol>
</section>`;
