// Steps through the flows of a lesson page: which bytes were sent, wait in the kernel, were read.
'use strict';
const isChinese = document.documentElement.lang.startsWith('zh');
const choose = (english, chinese) => isChinese ? chinese : english;

const STEP_MILLISECONDS = 1100; // between two steps while playing
const MAX_CHUNKS = 14; // per place
const MAX_CHUNK_BYTES = 40;
const MAX_LETTERS = 8; // of messages in the description of a step

// The kinds of a step, and its fields in the figure's data: see `data` in figure.rs.
const WRITE = 0, READ = 2;

// Bytes as on the terminal: what is not printable text becomes \n, \x1b or \xff.
const decoder = new TextDecoder('utf-8', { fatal: true });
const ESCAPES = { 9: '\\t', 10: '\\n', 13: '\\r' };
const twoDigits = byte => byte.toString(16).padStart(2, '0');
const escaped = byte => ESCAPES[byte] ?? '\\x' + twoDigits(byte);
function visible(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const byte = bytes[at];
    if (byte >= 0x20 && byte < 0x7f) {
      text += String.fromCharCode(byte);
      at += 1;
      continue;
    }
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
    try {
      const character = length > 1 ? decoder.decode(bytes.subarray(at, at + length)) : '';
      if (!/^[\p{L}\p{N}\p{P}\p{S}]$/u.test(character)) throw 0;
      text += character;
      at += length;
    } catch {
      text += escaped(byte);
      at += 1;
    }
  }
  return text;
}

const hex = (bytes, gap) => Array.from(bytes, twoDigits).join(gap);
// Bytes in little space: text, or groups of four bytes as digits if most of it were \x..
function brief(bytes) {
  const text = visible(bytes);
  const escapes = (text.match(/\\x/g) ?? []).length;
  return escapes * 3 > bytes.length ? hex(bytes, '').replace(/.{8}(?=.)/g, '$& ') : text;
}

function element(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}
function byteCount(bytes) {
  if (isChinese) return `${bytes} 字节`;
  return bytes === 1 ? '1 byte' : `${bytes} bytes`;
}
function duration(micros) {
  if (micros < 1000) return `${micros} µs`;
  if (micros < 1e6) return `${(micros / 1000).toFixed(2)} ms`;
  return `${(micros / 1e6).toFixed(2)} s`;
}

function flow(figure) {
  const data = JSON.parse(figure.querySelector('script').textContent);
  const { messages, stream, names, nth, returns } = data;
  const steps = data.steps.map(([kind, number, start, end, at, digits]) => {
    const bytes = Uint8Array.from(digits.match(/../g) ?? [], pair => parseInt(pair, 16));
    return { kind, number, start, end, at, bytes };
  });
  const find = selector => figure.querySelector(selector);
  const [slider, back, play, forward] = ['input', '.back', '.play', '.forward'].map(find);
  const [now, detail, strip] = ['.now', '.detail', '.strip'].map(find);
  const blocks = [...figure.querySelectorAll('.block')];
  let timer = 0;

  // Splits a range of bytes by messages; a part between messages has no letter.
  function parts(start, end) {
    const found = [];
    let at = start;
    for (const [letter, from, to, paint] of messages) {
      if (to <= at || from >= end) continue;
      if (from > at) found.push({ start: at, end: from });
      at = Math.min(to, end);
      const whole = from >= start && to <= end;
      found.push({ letter, paint, start: Math.max(from, start), end: at, whole });
    }
    if (at < end) found.push({ start: at, end });
    return found;
  }
  // The bytes of a range as text, as far as a step has a copy of them.
  function content(start, end) {
    const holds = step => step.start <= start && start < step.start + step.bytes.length;
    const step = steps.find(holds);
    if (!step) return '';
    const last = Math.min(end, start + MAX_CHUNK_BYTES, step.start + step.bytes.length);
    const text = brief(step.bytes.subarray(start - step.start, last - step.start));
    return text + (last < end ? '…' : '');
  }
  // Shows ranges of bytes in one of the three places, and a caption below them.
  function fill(place, ranges, emptyText, caption) {
    const chunks = find(`.${place} .chunks`);
    chunks.replaceChildren();
    const all = ranges.flatMap(([start, end]) => parts(start, end));
    for (const part of all.slice(0, MAX_CHUNKS)) {
      const paint = part.paint === undefined ? '' : ' m' + part.paint;
      const text = `${part.letter ?? '?'}│${content(part.start, part.end)}`;
      const chunk = element('span', 'chunk' + paint, text);
      chunk.title = byteCount(part.end - part.start);
      chunks.append(chunk);
    }
    const more = all.length - MAX_CHUNKS;
    if (more > 0) chunks.append(element('span', 'empty', `… +${more}`));
    if (!all.length) chunks.append(element('span', 'empty', emptyText));
    find(`.${place} p`).textContent = caption;
  }
  function describe(step) {
    const name = nth[step.kind].replace('#', step.number);
    const returned = step.kind === READ && returns ? choose('returned ', '返回 ') : '';
    const colon = choose(': ', '：');
    const moved = name + colon + returned + byteCount(step.end - step.start);
    if (step.start === step.end) return moved;
    const letters = parts(step.start, step.end).map(part =>
      (part.letter ?? '?') + (part.whole === false ? choose(' (a part)', '（一部分）') : ''));
    const more = letters.length - MAX_LETTERS;
    const first = letters.slice(0, MAX_LETTERS).join(choose(', ', '、'));
    return moved + colon + first + (more > 0 ? ` … +${more}` : '');
  }
  // Shows the bytes of a step below the drawing.
  function inspect(step) {
    detail.hidden = !step;
    if (!step) return;
    const last = step.end - 1;
    const range = step.start === step.end ? '' : ' · ' + choose(
      `bytes ${step.start} to ${last} of the flow`, `流中第 ${step.start} 至 ${last} 字节`);
    const copied = step.bytes.length;
    const truncated = copied === step.end - step.start ? '' : choose(
      ` (only the first ${copied} are shown)`, `（只显示前 ${copied} 字节）`);
    detail.replaceChildren(
      element('b', '', describe(step)),
      element('small', '', duration(step.at) + range + truncated),
      element('div', 'code', visible(step.bytes)),
      element('div', 'code hex', hex(step.bytes, ' ')));
  }

  // The ranges that were written and not read. A stream is one queue of bytes. A datagram is read
  // or not, and the bytes that a short read cuts off are lost.
  function waitingRanges(writes, reads) {
    const lastEnd = list => list.reduce((end, step) => Math.max(end, step.end), 0);
    const [sent, taken] = [lastEnd(writes), lastEnd(reads)];
    if (stream) return taken < sent ? [[taken, sent]] : [];
    const read = new Set(reads.map(step => step.start));
    return writes.filter(step => !read.has(step.start)).map(step => [step.start, step.end]);
  }
  function draw() {
    const at = Number(slider.value);
    const past = steps.slice(0, at);
    const step = past[at - 1];
    const [writes, reads] = [WRITE, READ].map(kind => past.filter(step => step.kind === kind));
    const sum = ranges => ranges.reduce((total, [start, end]) => total + end - start, 0);
    const range = step => [step.start, step.end];
    const waiting = waitingRanges(writes, reads);
    const [write, read] = [writes.at(-1), reads.at(-1)];
    const calls = (kind, list) =>
      `${list.length} × ${names[kind]} · ${byteCount(sum(list.map(range)))}`;
    fill('sent', write ? [range(write)] : [], '—', calls(WRITE, writes));
    fill('kernel', waiting, choose('empty', '空'), byteCount(sum(waiting)));
    fill('got', read ? [range(read)] : [], read ? byteCount(0) : '—', calls(READ, reads));
    for (const block of blocks) {
      const first = Number(block.dataset.step);
      block.classList.toggle('later', first > at);
      block.classList.toggle('current', first === at);
    }
    now.textContent = step
      ? [choose(`Step ${at} of ${steps.length}`, `第 ${at} 步，共 ${steps.length} 步`),
        duration(step.at), describe(step)].join(' · ')
      : [choose('Before the first call', '第一次调用之前'),
        choose('nothing has been sent', '什么都还没有发送')].join(' · ');
    slider.setAttribute('aria-valuetext', now.textContent);
    back.disabled = at === 0;
    forward.disabled = at === steps.length;
    figure.dataset.at = at;
    figure.dataset.held = sum(waiting);
    inspect(step);
  }
  function go(to) {
    slider.value = to;
    draw();
    // In a narrow window the drawing is wider than its frame: scroll to the current block.
    const current = blocks.find(block => block.classList.contains('current'));
    if (!current || strip.scrollWidth <= strip.clientWidth) return;
    const [box, frame] = [current, strip].map(node => node.getBoundingClientRect());
    if (box.left < frame.left || box.right > frame.right) {
      strip.scrollLeft += box.left - frame.left - 90;
    }
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = choose('▶ Play', '▶ 播放');
    figure.dataset.playing = false;
  }
  const stopAndGo = to => { stop(); go(to); };
  slider.addEventListener('input', () => stopAndGo(Number(slider.value)));
  back.addEventListener('click', () => stopAndGo(Number(slider.value) - 1));
  forward.addEventListener('click', () => stopAndGo(Number(slider.value) + 1));
  play.addEventListener('click', () => {
    if (timer) { stop(); return; }
    if (Number(slider.value) === steps.length) go(0);
    play.textContent = choose('❚❚ Pause', '❚❚ 暂停');
    figure.dataset.playing = true;
    timer = setInterval(() => {
      go(Number(slider.value) + 1);
      if (Number(slider.value) === steps.length) stop();
    }, STEP_MILLISECONDS);
  });
  for (const block of blocks) {
    const step = steps[Number(block.dataset.step) - 1];
    if (!step) continue;
    block.addEventListener('click', () => stopAndGo(Number(block.dataset.step)));
    block.addEventListener('pointerenter', () => inspect(step));
    block.addEventListener('pointerleave', () => inspect(steps[Number(slider.value) - 1]));
  }
  find('.player').hidden = false;
  stop();
  draw();
}
document.querySelectorAll('figure.flow').forEach(flow);
