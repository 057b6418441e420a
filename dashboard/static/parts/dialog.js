// The browser's own modal dialog: it keeps the focus, closes with Escape and gives the focus back.
import { html, useEffect, useRef } from '../html.js';
import { t } from '../language.js';
import { Icon } from '../shapes.js';

export function Dialog({ title, close, wide = false, children }) {
  const box = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${box} class=${wide ? 'wide' : ''} aria-labelledby="dialog-title" onClose=${close}>
    <div class="stack">
      <div class="row between"><h2 id="dialog-title">${title}</h2>
        <button class="icon plain" onClick=${() => box.current.close()} aria-label=${t('close')}><${Icon} of="close" /></button></div>
      ${children}
    </div>
  </dialog>`;
}
