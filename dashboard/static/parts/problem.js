// What went wrong, in one sentence, with the server's or the line's own words behind it.
import { html } from '../html.js';
import { t, word } from '../language.js';
import { Notice } from '../shapes.js';

export function sentence({ code, values = {}, detail }) {
  const known = word('error', code);
  const said = known === code ? t('error.unknown', { status: code }) : t(`error.${code}`, texts(values));
  return detail ? `${said} (${detail})` : said;
}

const texts = (values) => Object.fromEntries(Object.entries(values).map(([key, value]) => [key, typeof value === 'number' ? value : String(value)]));

export const Problem = ({ error, again }) => error && html`<${Notice} tone="fault" role="alert">
  <p>${error.code ? sentence(error) : t('error.page', { detail: String(error.message ?? error) })}</p>
  ${again && html`<button onClick=${again}>${t('again')}</button>`}
<//>`;

export const Loading = () => html`<p class="muted loading" role="status">${t('loading')}</p>`;
