// The line as it is now: one sentence, the cameras, and what was rejected last.
import { html, useEffect, useRef, useState } from '../html.js';
import { address } from '../address.js';
import { get, linePath } from '../api.js';
import { usePage } from '../context.js';
import { clock, duration, number, percent, score, t, unit, when, word } from '../language.js';
import { reasonText, Thumbnail, whyMissing } from '../parts/picture.js';
import { Loading } from '../parts/problem.js';
import { lineSentence, lineTone, troubleText } from '../parts/sentence.js';
import { Strip } from '../parts/strip.js';
import { Notice, Shape, State, Verdict } from '../shapes.js';

const MOST_POINTS = 400;

export function LinePage({ state, lostAt }) {
  const { line, live } = usePage();
  const [points, setPoints] = useState({});
  const [previews, setPreviews] = useState({});
  const [rejects, setRejects] = useState([]);
  const strips = useRef({});

  useEffect(() => {
    if (!live) return undefined;
    const add = (arrived, threshold) => {
      const changed = {};
      for (const [camera, at, value, decision] of arrived) {
        changed[camera] ??= (strips.current[camera] ?? []).slice(-MOST_POINTS);
        changed[camera].push({ at, score: value, decision, threshold });
      }
      Object.assign(strips.current, changed);
      setPoints({ ...strips.current });
    };
    const begin = async (all) => {
      const found = all.cameras ?? {};
      setPreviews(Object.fromEntries(Object.entries(found).map(([camera, one]) => [camera, stamped(one.preview)])));
      setRejects(all.last_rejects ?? []);
      strips.current = {};
      await Promise.all(Object.keys(found).map(async (camera) => {
        const before = await get(linePath(line, '/strip'), { camera, seconds: 60 }).catch(() => null);
        if (!before) return;
        const old = before.points.map(([at, value, decision]) => ({ at, score: value, decision, threshold: before.threshold }));
        const now = strips.current[camera] ?? [];
        strips.current[camera] = [...old.filter((one) => !now.length || one.at < now[0].at), ...now].slice(-MOST_POINTS);
      }));
      setPoints({ ...strips.current });
    };
    const off = live.on((message) => {
      if (message.type === 'hello') begin(message.state);
      if (message.type === 'preview') setPreviews((before) => ({ ...before, [message.camera]: stamped(message.preview) }));
      if (message.type === 'verdicts') {
        add(message.points, message.threshold);
        if (message.rejects.length) setRejects((before) => newest([...message.rejects, ...before]));
      }
    });
    live.previews(true);
    if (live.state?.last_rejects || live.state?.cameras) get(linePath(line)).then(begin, () => {});
    return () => { off(); live.previews(false); };
  }, [live]);

  if (!state) return html`<header><h1 tabindex="-1">${t('line.title')}</h1></header><${Loading} />`;
  const cameras = Object.entries(state.cameras ?? {});
  return html`
    <h1 tabindex="-1" class="hidden">${t('line.title')}</h1>
    ${!lostAt && html`<div class=${`sentence tone-${lineTone(state.state)}`}><${Shape} of=${lineTone(state.state)} />
      <div><p>${lineSentence(state)}</p>
      <p class="muted">${[state.product, state.engine, state.uptime_s && t('line.uptime', { time: duration(state.uptime_s) })].filter(Boolean).join(' · ')}</p></div></div>`}
    ${state.trouble?.map((one) => html`<${Notice} tone="fault" key=${one.code}><p>${troubleText(one)}</p><//>`)}
    <div class="line-page">
      <section class="cameras" aria-label=${t('line.cameras')}>${cameras.map(([name, one]) => html`<${Camera} key=${name} line=${line} name=${name} camera=${one}
        preview=${previews[name] ?? stamped(one.preview)} points=${points[name] ?? []} lostAt=${lostAt} />`)}</section>
      <div class="stack">
        <section class="panel" aria-labelledby="rejects-now"><h2 id="rejects-now">${t('line.rejects')}</h2>
          <${Figures} minute=${state.counts?.minute} hour=${state.counts?.hour} shift=${state.counts?.shift} /></section>
        <section class="panel" aria-labelledby="pace-now"><h2 id="pace-now">${t('line.pace')}</h2><dl class="figures">
          <div><dt>${t('line.per_second')}</dt><dd>${number(state.per_second ?? 0, 1)}</dd></div>
          <div><dt>${t('line.latency')}</dt><dd>${unit(state.latency_ms?.median, 'millisecond', 1)}<small>${t('line.latency.p99', { time: unit(state.latency_ms?.p99, 'millisecond', 1) })}</small></dd></div>
        </dl></section>
        <section class="panel" aria-labelledby="last-rejects"><h2 id="last-rejects">${t('line.last_rejects')}</h2>
          ${rejects.length ? html`<ul class="thumbs last">${rejects.map((one) => html`<li key=${one.id}><a class="thumb" href=${address(line, 'rejects', one.id)}>
            <${Thumbnail} line=${line} verdict=${one} /><span class="small"><b>${one.score === null ? t(`decision.${one.decision}`) : score(one.score)}</b></span><span class="small muted">${clock(one.at)}</span>${cameras.length > 1 && html`<span class="small muted"><span>${one.camera}</span></span>`}</a></li>`)}</ul>`
            : html`<p class="muted">${t('line.no_rejects')}</p>`}
          <p><a href=${address(line, 'rejects')}>${t('line.all_rejects')}</a></p></section>
      </div>
    </div>`;
}

const newest = (all) => [...new Map(all.map((one) => [one.id, one])).values()].sort((a, b) => b.at - a.at).slice(0, 10);

// When it arrived by the page's own steady clock: its age must not depend on whether two clocks agree.
const stamped = (preview) => preview && { ...preview, arrived: performance.now() };

export function Figures({ minute, hour, shift }) {
  const figure = (name, counts) => {
    const rejects = counts?.reject ?? counts;
    const judged = counts?.reject === undefined ? null : counts.pass + counts.reject;
    return html`<div><dt>${name}</dt><dd>${number(rejects ?? 0)}${judged ? html`<small>${t('line.of', { share: percent(rejects / judged), count: judged })}</small>` : ''}
      ${counts?.fault > 0 ? html`<small><${State} tone="fault" size="16">${t('line.faults', { count: counts.fault })}<//></small>` : ''}</dd></div>`;
  };
  return html`<dl class="figures">${figure(t('line.minute'), minute)}${figure(t('line.hour'), hour)}${figure(shift?.name ? t('line.shift.since', { time: shift.name }) : t('line.shift'), shift)}</dl>`;
}

function Camera({ line, name, camera, preview, points, lostAt }) {
  const [shownAt, setShownAt] = useState(null);
  const [failed, setFailed] = useState(null);
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 500);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => setFailed(null), [preview?.url]);
  const last = points[points.length - 1];
  const age = preview?.url ? (preview.age_ms ?? 0) + performance.now() - preview.arrived : null;
  const old = Boolean(preview?.url) && (preview.old || lostAt !== null || age > 5000);
  const running = camera.state === 'running';
  const broken = preview?.url && failed?.url === preview.url;
  return html`<article class="panel camera stack tight" aria-label=${name}>
    <header><h2>${name}</h2><${State} tone=${running ? 'pass' : camera.state === 'opening' ? 'note' : 'fault'} size="18">${word('camera', camera.state)}<//></header>
    <div class=${`picture ${old ? 'old' : ''}`} style=${{ '--shape': preview?.width ? preview.width / preview.height : 4 / 3 }}>
      ${preview?.url && !broken
        ? html`<img src=${preview.url} alt=${old ? t('line.picture.old', { camera: name, time: when(preview.at) }) : t('line.picture', { camera: name })}
            onLoad=${() => setShownAt(preview.at)} onError=${() => whyMissing(preview.url).then((reason) => setFailed({ url: preview.url, reason }))} />`
        : html`<span class="missing">${broken ? reasonText(failed.reason) : reasonText(preview?.reason ?? { code: 'no_picture_yet' })}</span>`}
      ${old && !broken && html`<span class="since">${t('line.no_picture_since', { time: when(preview.at) })}</span>`}
    </div>
    <div class="row between">
      ${preview?.kind && !broken ? html`<${Verdict} class=${old ? '' : 'verdict'} decision=${preview.kind} size=${old ? 20 : 30} />` : html`<${State} tone="unknown" class="verdict" size="30">${t('decision.none')}<//>`}
      <span class="muted nowrap">${preview?.kind ? html`${score(preview.score)} · ` : ''}${age !== null && (age < 1000 && !old ? t('line.now') : t('line.age', { time: duration(age / 1000) }))}</span>
    </div>
    ${camera.error && !running && html`<${Notice} tone="fault"><p>${camera.error}</p><//>`}
    <${Strip} verdicts=${points} camera=${name} />
    <p class="small row between"><span class="latest" data-at=${last?.at} data-shown-at=${shownAt}>${last ? html`<${Verdict} decision=${last.decision} size="16" /> <b>${score(last.score)}</b>` : t('line.no_verdict')}</span>
      <span class="muted">${last ? t('line.threshold', { score: score(last.threshold) }) : ''}</span></p>
  </article>`;
}
