// The three answers, and the kinds of defects, as buttons that name their keys.
import { html, useState } from '../html.js';
import { t } from '../language.js';
import { Shape } from '../shapes.js';

export const KINDS_KEYS = 'asdfghjkl';
const SHAPES = { defect: 'reject', false_reject: 'pass', unsure: 'unknown' };
export const LABELS = Object.keys(SHAPES);

// Props: decision (of a pass, "false reject" reads "good"), label and kind (what holds, or null), kinds, judge(label, kind), keys.
export function Judge({ decision, label, kind, kinds, judge, busy, keys = true }) {
  const [named, setNamed] = useState('');
  const name = (one) => (decision === 'pass' ? t(`label.${one}.pass`) : t(`label.${one}`));
  const add = (event) => {
    event.preventDefault();
    if (named.trim()) judge('defect', named.trim());
    setNamed('');
  };
  return html`<div class="stack tight">
    <div class="choices" role="group" aria-label=${t('judge.title')}>${LABELS.map((one, index) => html`<button key=${one} disabled=${busy} aria-pressed=${label === one} class=${`tone-${SHAPES[one]}`} onClick=${() => judge(one, null)}>
      ${keys && html`<kbd aria-hidden="true">${index + 1}</kbd>`}<span class="state"><${Shape} of=${SHAPES[one]} /></span><span>${name(one)}</span></button>`)}</div>
    <fieldset class="stack tight"><legend>${t('judge.kinds')}</legend>
      <div class="row tight">${kinds.map((one, index) => html`<button key=${one} disabled=${busy} aria-pressed=${label === 'defect' && kind === one} onClick=${() => judge('defect', one)}>
        ${keys && index < KINDS_KEYS.length && html`<kbd aria-hidden="true">${KINDS_KEYS[index].toUpperCase()}</kbd>`}${one}</button>`)}</div>
      <form class="row tight" onSubmit=${add}><label class="grow"><span class="hidden">${t('judge.new_kind')}</span><input value=${named} maxlength="64" placeholder=${t('judge.new_kind')} onInput=${(event) => setNamed(event.target.value)} /></label>
        <button disabled=${busy || !named.trim()}>${t('judge.add')}</button></form>
    </fieldset>
  </div>`;
}
