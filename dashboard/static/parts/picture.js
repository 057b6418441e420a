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

const TRIES = 5;
const FRESH_MS = 1200;

// How long to wait with a picture that is being written while its verdict is heard.
const waitFor = (verdict) => Math.min(FRESH_MS, Math.max(0, FRESH_MS - (Date.now() - verdict.at)));

export function Thumbnail({ line, verdict, size = 160, shape = 1 }) {
  const [reason, setReason] = useState(null);
  const [tried, setTried] = useState(0);
  const [ripe, setRipe] = useState(() => waitFor(verdict) === 0);
  const url = `/api/lines/${encodeURIComponent(line)}/verdicts/${verdict.id}/thumbnail.jpg?size=${size}`;
  useEffect(() => {
    setReason(null);
    setTried(0);
    const wait = waitFor(verdict);
    setRipe(wait === 0);
    const timer = wait ? setTimeout(() => setRipe(true), wait) : null;
    return () => clearTimeout(timer);
  }, [url]);
  useEffect(() => {
    if (reason?.code !== 'not_yet' || tried >= TRIES) return undefined;
    const timer = setTimeout(() => { setReason(null); setTried(tried + 1); }, 700);
    return () => clearTimeout(timer);
  }, [reason]);
  if (!verdict.pictures) return html`<span class="picture" style=${{ '--shape': shape }}><span class="missing">${t('picture.none')}</span></span>`;
  return html`<span class="picture" style=${{ '--shape': shape }}>${reason
    ? html`<span class="missing">${reasonText(reason)}</span>`
    : !ripe ? html`<span class="missing">…</span>` : html`<img src=${url} alt="" decoding="async" onError=${() => whyMissing(url).then(setReason)} />`}</span>`;
}
