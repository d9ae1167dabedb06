'use strict';
const chinese = document.documentElement.lang.startsWith('zh');
const say = (english, translated) => chinese ? translated : english;
const PAUSE = 1100; // between two steps of a film, in milliseconds

// Bytes as the lesson's terminal shows them: what is no printable text becomes \n, \x1b, \xff.
const decoder = new TextDecoder('utf-8', { fatal: true });
const NAMES = { 9: '\\t', 10: '\\n', 13: '\\r' };
const escaped = byte => NAMES[byte] ?? '\\x' + byte.toString(16).padStart(2, '0');
function visible(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const byte = bytes[at];
    if (byte >= 0x20 && byte < 0x7f) { text += String.fromCharCode(byte); at += 1; continue; }
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
    try {
      const character = length > 1 ? decoder.decode(bytes.subarray(at, at + length)) : '';
      if (!/^[\p{L}\p{N}\p{P}\p{S}]$/u.test(character)) throw 0;
      text += character;
      at += length;
    } catch { text += escaped(byte); at += 1; }
  }
  return text;
}

const hex = (bytes, gap) => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join(gap);
// The same where there is little room: mostly \x.. would say less than the digits alone, four bytes together.
function brief(bytes) {
  const text = visible(bytes);
  const strange = (text.match(/\\x/g) ?? []).length;
  return strange * 3 > bytes.length ? hex(bytes, '').replace(/.{8}(?=.)/g, '$& ') : text;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
const count = bytes => chinese ? `${bytes} 字节` : bytes === 1 ? '1 byte' : `${bytes} bytes`;
const time = micros => micros < 1000 ? `${micros} µs` : micros < 1e6 ? `${(micros / 1000).toFixed(2)} ms` : `${(micros / 1e6).toFixed(2)} s`;

function flow(figure) {
  const { messages, steps: rows, stream, names, nth, returns } = JSON.parse(figure.querySelector('script').textContent);
  const steps = rows.map(([kind, number, start, end, at, digits]) => {
    const bytes = Uint8Array.from(digits.match(/../g) ?? [], pair => parseInt(pair, 16));
    return { kind, number, start, end, at, bytes };
  });
  const find = selector => figure.querySelector(selector);
  const [slider, back, play, forth] = ['input', '.back', '.play', '.forth'].map(find);
  const [now, detail] = ['.now', '.detail'].map(find);
  const blocks = [...figure.querySelectorAll('.block')];
  let film = 0;

  // The messages that a stretch of bytes is made of; what no message owns has none.
  function parts(start, end) {
    const found = [];
    let at = start;
    for (const [letter, from, to, paint] of messages) {
      if (to <= at || from >= end) continue;
      if (from > at) found.push({ start: at, end: from });
      at = Math.min(to, end);
      found.push({ letter, paint, start: Math.max(from, start), end: at, whole: from >= start && to <= end });
    }
    if (at < end) found.push({ start: at, end });
    return found;
  }
  // What is known of these bytes: a copy of the beginning of every call was kept.
  function content(start, end) {
    const holder = steps.find(step => step.start <= start && start < step.start + step.bytes.length);
    if (!holder) return '';
    const most = Math.min(end, start + 40, holder.start + holder.bytes.length);
    return brief(holder.bytes.subarray(start - holder.start, most - holder.start)) + (most < end ? '…' : '');
  }
  const MOST = 14;
  function fill(place, stretches, nothing, told) {
    const chunks = find(`.${place} .chunks`);
    chunks.replaceChildren();
    const all = stretches.flatMap(([start, end]) => parts(start, end));
    for (const part of all.slice(0, MOST)) {
      const chunk = element('span', 'chunk' + (part.paint === undefined ? '' : ' m' + part.paint));
      chunk.textContent = `${part.letter ?? '?'}│${content(part.start, part.end)}`;
      chunk.title = count(part.end - part.start);
      chunks.append(chunk);
    }
    if (all.length > MOST) chunks.append(element('span', 'empty', `… +${all.length - MOST}`));
    if (!all.length) chunks.append(element('span', 'empty', nothing));
    find(`.${place} p`).textContent = told;
  }
  function describe(step) {
    const name = nth[step.kind].replace('#', step.number);
    const size = count(step.end - step.start);
    const whose = parts(step.start, step.end).map(part => (part.letter ?? '?') + (part.whole === false ? say(' (a part)', '（一部分）') : ''));
    const of = whose.slice(0, 8).join(say(', ', '、')) + (whose.length > 8 ? ` … +${whose.length - 8}` : '');
    const returned = step.kind === 2 && returns ? say('returned ', '返回 ') : '';
    const colon = say(': ', '：');
    return name + colon + returned + size + (step.start === step.end ? '' : colon + of);
  }
  function inspect(step) {
    detail.hidden = !step;
    if (!step) return;
    const range = say(`bytes ${step.start} to ${step.end - 1} of the flow`, `流中第 ${step.start} 至 ${step.end - 1} 字节`);
    const where = step.start === step.end ? '' : ` · ${range}`;
    const kept = step.bytes.length < step.end - step.start
      ? say(` (the first ${step.bytes.length} are kept)`, `（只保留了前 ${step.bytes.length} 字节）`) : '';
    detail.replaceChildren(
      element('b', '', describe(step)), element('small', '', time(step.at) + where + kept),
      element('div', 'code', visible(step.bytes)), element('div', 'code hex', hex(step.bytes, ' ')));
  }

  function draw() {
    const at = Number(slider.value);
    const past = steps.slice(0, at);
    const step = past[at - 1];
    const of = kind => past.filter(step => step.kind === kind);
    const [writes, reads] = [of(0), of(2)];
    const sum = list => list.reduce((total, step) => total + step.end - step.start, 0);
    const sent = writes.reduce((most, step) => Math.max(most, step.end), 0);
    const taken = reads.reduce((most, step) => Math.max(most, step.end), 0);
    // A stream is one queue of bytes. Datagrams are taken one by one, and what a short read cut off is gone.
    const known = new Set(reads.map(step => step.start));
    const waiting = stream
      ? (taken < sent ? [[taken, sent]] : [])
      : writes.filter(step => !known.has(step.start)).map(step => [step.start, step.end]);
    const held = waiting.reduce((total, [from, to]) => total + to - from, 0);
    const last = reads.at(-1);
    const write = writes.at(-1);
    const calls = (kind, list) => `${list.length} × ${names[kind]} · ${count(sum(list))}`;
    fill('sent', write ? [[write.start, write.end]] : [], '—', calls(0, writes));
    fill('kernel', waiting, say('empty', '空'), count(held));
    fill('got', last ? [[last.start, last.end]] : [], last ? say('0 bytes', '0 字节') : '—', calls(2, reads));
    for (const block of blocks) {
      const first = Number(block.dataset.step);
      block.classList.toggle('later', first > at);
      block.classList.toggle('current', first === at);
    }
    const [head, tail] = step ? [say(`Step ${at} of ${steps.length}`, `第 ${at} 步，共 ${steps.length} 步`), describe(step)]
      : [say('Before the first call', '第一次调用之前'), say('nothing has been sent', '什么都还没有发送')];
    now.textContent = `${head}${step ? ` · ${time(step.at)}` : ''} · ${tail}`;
    slider.setAttribute('aria-valuetext', now.textContent);
    back.disabled = at === 0;
    forth.disabled = at === steps.length;
    figure.dataset.at = at;
    figure.dataset.held = held;
    inspect(step);
  }
  function go(to) {
    slider.value = to;
    draw();
    // In a narrow window the picture is wider than its frame: keep the current block in sight.
    const current = blocks.find(block => block.classList.contains('current'));
    const strip = find('.strip');
    if (current && strip.scrollWidth > strip.clientWidth) {
      const box = current.getBoundingClientRect(), frame = strip.getBoundingClientRect();
      if (box.left < frame.left || box.right > frame.right) strip.scrollLeft += box.left - frame.left - 90;
    }
  }
  function stop() {
    clearInterval(film);
    film = 0;
    play.textContent = say('▶ Play', '▶ 播放');
    figure.dataset.playing = false;
  }
  slider.addEventListener('input', () => { stop(); go(Number(slider.value)); });
  back.addEventListener('click', () => { stop(); go(Number(slider.value) - 1); });
  forth.addEventListener('click', () => { stop(); go(Number(slider.value) + 1); });
  play.addEventListener('click', () => {
    if (film) { stop(); return; }
    if (Number(slider.value) === steps.length) go(0);
    play.textContent = say('❚❚ Pause', '❚❚ 暂停');
    figure.dataset.playing = true;
    film = setInterval(() => {
      go(Number(slider.value) + 1);
      if (Number(slider.value) === steps.length) stop();
    }, PAUSE);
  });
  for (const block of blocks) {
    const step = steps[Number(block.dataset.step) - 1];
    if (!step) continue;
    block.addEventListener('click', () => { stop(); go(Number(block.dataset.step)); });
    block.addEventListener('pointerenter', () => inspect(step));
    block.addEventListener('pointerleave', () => inspect(steps[Number(slider.value) - 1]));
  }
  find('.player').hidden = false;
  stop();
  draw();
}
document.querySelectorAll('figure.flow').forEach(flow);
