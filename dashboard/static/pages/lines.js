// All lines at a glance: where there are several.
import { html, useEffect } from '../html.js';
import { address } from '../address.js';
import { get } from '../api.js';
import { useAnswer } from '../context.js';
import { t } from '../language.js';
import { Loading, Problem } from '../parts/problem.js';
import { lineSentence, lineTone } from '../parts/sentence.js';
import { Shape } from '../shapes.js';
import { Figures } from './line.js';

export function Lines() {
  const { value, error, again } = useAnswer((signal) => get('/api/lines', {}, signal), []);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || again(), 2000);
    return () => clearInterval(timer);
  }, [again]);
  return html`<header><h1 tabindex="-1">${t('lines.title')}</h1></header>
    <${Problem} error=${error} />
    ${!value && !error && html`<${Loading} />`}
    <ul class="two">${value?.lines.map((one) => html`<li key=${one.line} class="panel stack">
      <h2><a href=${address(one.line, 'line')}>${one.line}</a></h2>
      <div class=${`sentence tone-${lineTone(one.state)}`}><${Shape} of=${lineTone(one.state)} /><p>${lineSentence(one)}</p></div>
      <${Figures} minute=${one.rejects.minute} hour=${one.rejects.hour} shift=${one.rejects.shift} />
    </li>`)}</ul>`;
}
