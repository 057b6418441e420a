// A judged frame under its heat map, beside the most similar good part, in synchronised zoom.
import { html, useEffect, useMemo, useState } from '../html.js';
import { clock, percent, score, t } from '../language.js';
import { centred, Lens, WHOLE, ZoomButtons } from './lens.js';
import { reasonText, whyMissing } from './picture.js';

const CLOSE = 4; // how far the peak is enlarged

// Props: detail, as of GET …/verdicts/ID; `heat` says whether the heat map is on at first.
export function Frames({ detail, heat = 0.6 }) {
  const [view, setView] = useState(WHOLE);
  const [opacity, setOpacity] = useState(heat);
  const [marked, setMarked] = useState(true);
  const { verdict, pictures, region, similar_good: good } = detail;
  useEffect(() => setView(WHOLE), [verdict.id]);
  const peak = useMemo(() => peakIn(pictures.frame, region, verdict.peak), [detail]);
  const shape = pictures.frame?.width ? pictures.frame.width / pictures.frame.height : 1;
  return html`<div class="stack tight">
    <div class="pair">
      <figure><figcaption>${t('detail.this', { camera: verdict.camera, time: clock(verdict.at) })}</figcaption>
        <${Lens} view=${view}
          onView=${setView} shape=${shape} label=${t('detail.picture', { score: score(verdict.score), threshold: score(verdict.threshold) })}>
          <${Layer} picture=${pictures.frame} />
          ${pictures.frame?.url && html`<${Layer} picture=${pictures.overlay} opacity=${opacity} quiet />`}
          ${marked && peak && html`<${Peak} at=${peak} scale=${view.scale} shape=${shape} />`}
        <//></figure>
      <figure><figcaption>${good ? t('detail.similar', { time: clock(good.verdict.at), likeness: percent(good.likeness, 1) }) : t('detail.similar.title')}
        </figcaption>
        <${Lens} view=${view} onView=${setView} shape=${shape} label=${t('detail.similar.title')}>
          ${good ? html`<${Layer} picture=${good.pictures.frame} />
            ${marked && peak && html`<${Peak} at=${peak} scale=${view.scale} shape=${shape} />`}`
            : html`<p class="missing">${t('detail.similar.none')}</p>`}
        <//></figure>
    </div>
    <div class="row">
      <${ZoomButtons} view=${view} onView=${setView} />
      <button disabled=${!peak} onClick=${() => setView(centred(peak[0], peak[1], CLOSE))}>${t('zoom.peak')}</button>
      <label class="tick"><input type="checkbox" checked=${marked} onChange=${() => setMarked(!marked)} />
        ${t('detail.mark')}</label>
      <label class="field grow opacity"><span>${t('detail.opacity', { share: percent(opacity, 0) })}</span>
        <input type="range" min="0" max="1" step="0.05" value=${opacity} disabled=${!pictures.overlay?.url}
          onInput=${(event) => setOpacity(Number(event.target.value))} /></label>
    </div>
    <${Scale} threshold=${verdict.threshold} />
  </div>`;
}

// Where the peak lies in the frame, as shares of its width and height.
function peakIn(frame, region, peak) {
  if (!peak || !frame?.width) return null;
  const { x, y, width, height } = region ?? { x: 0, y: 0, width: frame.width, height: frame.height };
  const at = [(peak.x - x) / width, (peak.y - y) / height];
  return at.every((share) => share >= 0 && share <= 1) ? at : null;
}

const Peak = ({ at: [x, y], scale, shape }) => {
  const size = 0.055 / Math.sqrt(scale);
  const cross = (from, to) => `M${x * 100} ${(y + from * shape) * 100}V${(y + to * shape) * 100}M${(x + from) * 100} ${y * 100}H${(x + to) * 100}`;
  const path = `${cross(-2 * size, -size)}${cross(size, 2 * size)}`;
  return html`<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
    <path d=${path} fill="none" stroke="#000" stroke-width="5" vector-effect="non-scaling-stroke" />
    <path d=${path} fill="none" stroke="#fff" stroke-width="2" vector-effect="non-scaling-stroke" /></svg>`;
};

function Layer({ picture, opacity, quiet }) {
  const [reason, setReason] = useState(null);
  useEffect(() => setReason(null), [picture?.url]);
  if (picture?.url && !reason) {
    return html`<img src=${picture.url} alt="" draggable=${false} style=${{ opacity: opacity ?? 1 }}
      onError=${() => whyMissing(picture.url).then(setReason)} />`;
  }
  return quiet ? null : html`<p class="missing">${reasonText(reason ?? picture?.reason ?? { code: 'none' })}</p>`;
}

// The colours are the same for all parts of a threshold, so a good part never glows.
const Scale = ({ threshold }) => html`<div class="scale" role="group" aria-label=${t('detail.scale')}>
  <div class="ramp"></div>
  <div class="ends"><span>${t('detail.scale.low', { score: score(threshold / 2) })}</span><span>
    ${t('detail.scale.threshold', { score: score(threshold) })}</span><span>
    ${t('detail.scale.high', { score: score(2 * threshold) })}</span></div>
</div>`;
