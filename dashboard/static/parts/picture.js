// A picture, or why there is none. `Missing` asks the server for the reason once the browser says that a picture failed.
import { html, useEffect, useState } from '../html.js';
import { t, word } from '../language.js';

export const reasonText = (reason) => {
  const text = word('picture', reason?.code ?? 'none');
  return reason?.detail ? `${text} (${reason.detail})` : text;
};

export async function whyMissing(url) {
  try {
    const answer = await fetch(url);
    if (answer.ok) return { code: 'damaged', detail: null };
    return (await answer.json()).error;
  } catch {
    return { code: 'no_connection', detail: null };
  }
}

export function Thumbnail({ line, verdict, size = 160, shape = 1 }) {
  const [reason, setReason] = useState(null);
  const url = `/api/lines/${encodeURIComponent(line)}/verdicts/${verdict.id}/thumbnail.jpg?size=${size}`;
  useEffect(() => setReason(null), [url]);
  if (!verdict.pictures) return html`<span class="picture" style=${{ '--shape': shape }}><span class="missing">${t('picture.none')}</span></span>`;
  return html`<span class="picture" style=${{ '--shape': shape }}>${reason
    ? html`<span class="missing">${reasonText(reason)}</span>`
    : html`<img src=${url} alt="" loading="lazy" decoding="async" onError=${() => whyMissing(url).then(setReason)} />`}</span>`;
}
