// Draws what explorer/viewer.py sends: panes in a row, or two of them with a divider.
// All viewers of the page share opacity and outlines, those of one group the chosen segments.

const shared = (window.emerdiff ??= {});
const viewers = (shared.viewers ??= {
  opacity: props.opacity,
  outlines: true,
  chosen: {'': []}, // by group
  all: new Set(),
  look({chosen, ...changes}, group = '') {
    if (chosen) this.chosen[group] = chosen;
    Object.assign(this, changes);
    this.all.forEach((draw) => draw());
  },
});

const root = element.querySelector('.viewer');
const make = (tag, name, parent, attributes = {}) => {
  const made = Object.assign(document.createElement(tag), {className: name, ...attributes});
  parent.append(made);
  return made;
};
let panes = [];
let hovered = null; // {pane, number} of the segment under the pointer
let last = 0; // the latest value, where an older one is still being decoded

// ---------------------------------------------------------------- what is sent, decoded

async function decoded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

async function labelsOf(pane) {
  if (!pane.labels) return null;
  const image = await decoded(pane.labels);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const context = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const counts = new Uint32Array(pane.names.length);
  const numbers = Uint8Array.from(pixels, (pixel) => pixel & 255);
  for (const number of numbers) counts[number]++;
  return {numbers, counts, width, height};
}

// ---------------------------------------------------------------- one pane's segments

const rgba = (red, green, blue, alpha) => (Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red;
const WHITE = rgba(255, 255, 255, 1), BLACK = rgba(0, 0, 0, 1), DIM = rgba(16, 18, 27, 0.68);

/** The numbers of the segments that are lit in a pane: chosen ones and the one under the pointer. */
function lit(pane) {
  const ids = viewers.chosen[props.value?.group ?? ''] ?? [];
  const chosen = (pane.ids ?? []).flatMap((id, number) => (ids.includes(id) ? [number] : []));
  const over = hovered && (hovered.pane === pane ? hovered.number
    : hovered.pane.ids && pane.ids ? pane.ids.indexOf(hovered.pane.ids[hovered.number]) : -1);
  return {chosen, over: over ?? -1};
}

function paint(pane) {
  const {canvas, decodedLabels: of} = pane;
  if (!of) return;
  const {numbers, width, height} = of, {chosen, over} = lit(pane);
  const own = pane.fill === null, opacity = own ? viewers.opacity : pane.fill;
  const marked = new Uint8Array(256);
  for (const number of [...chosen, ...(over >= 0 ? [over] : [])]) marked[number] = 1;
  const colours = Uint32Array.from(pane.colours, (colour, number) => {
    if (chosen.length && !marked[number]) return DIM;
    return pane.hidden.includes(number) ? 0 : rgba(...colour, opacity);
  });
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  const outlined = own && viewers.outlines, anyMarked = marked.includes(1);
  const silent = new Uint8Array(256); // neither hidden nor dimmed segments have outlines
  pane.colours.forEach((_, n) => { silent[n] = pane.hidden.includes(n) || (chosen.length > 0 && !marked[n]) ? 1 : 0; });
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const number = numbers[at];
      const right = x + 1 < width ? numbers[at + 1] : number, below = y + 1 < height ? numbers[at + width] : number;
      const edge = right !== number || below !== number;
      pixels[at] = edge && outlined && !silent[number] ? WHITE : colours[number];
      if (edge && anyMarked && (marked[right] !== marked[number] || marked[below] !== marked[number])) {
        pixels[at] = WHITE; // a white line on a black one, below, shows on any colour
      }
    }
  }
  if (anyMarked) frame(numbers, marked, pixels, width, height);
  Object.assign(canvas, {width, height});
  canvas.getContext('2d').putImageData(image, 0, 0);
}

/** Black, two pixels wide, around the marked segments, and white inside of it. */
function frame(numbers, marked, pixels, width, height) {
  for (let y = 2; y < height - 2; y++) {
    for (let x = 2; x < width - 2; x++) {
      const at = y * width + x, own = marked[numbers[at]];
      const near = (step) => marked[numbers[at + step]] !== own || marked[numbers[at - step]] !== own;
      if (near(1) || near(width) || near(2) || near(2 * width)) pixels[at] = own ? WHITE : BLACK;
    }
  }
}

const per = (count, of) => `${(100 * count / (of.width * of.height)).toFixed(count * 100 < of.width * of.height * 10 ? 1 : 0)} %`;

function name(pane) {
  const {chosen, over} = lit(pane), of = pane.decodedLabels;
  const numbers = over >= 0 ? [over] : chosen;
  pane.chip.hidden = !of || !numbers.length;
  if (pane.chip.hidden) return;
  const share = numbers.reduce((sum, number) => sum + of.counts[number], 0);
  pane.chip.textContent = `${numbers.map((number) => pane.names[number]).join(', ')} · ${per(share, of)}`;
  pane.chip.style.borderColor = `rgb(${pane.colours[numbers[0]]})`;
}

const draw = () => panes.forEach((pane) => { paint(pane); name(pane); });

// ---------------------------------------------------------------- the pointer

/** [x, y] of the pointer in a pane's picture, 0 to 1; null beside it. */
function placeIn(pane, event) {
  const box = pane.stage.getBoundingClientRect();
  const [x, y] = [(event.clientX - box.x) / box.width, (event.clientY - box.y) / box.height];
  return x < 0 || y < 0 || x >= 1 || y >= 1 ? null : [x, y];
}

function numberAt(pane, event) {
  const of = pane.decodedLabels, place = placeIn(pane, event);
  return of && place ? of.numbers[Math.floor(place[1] * of.height) * of.width + Math.floor(place[0] * of.width)] : null;
}

/** The pane under the pointer: of two with a divider, the one on its side. */
function paneAt(stage, event) {
  const [left, right] = stage.panes, box = stage.getBoundingClientRect();
  return right && event.clientX - box.x > box.width * stage.divider.value / 100 ? right : left;
}

function follow(stage) {
  let waiting = false;
  const over = (event) => {
    const pane = paneAt(stage, event), number = event.type === 'pointerleave' ? null : numberAt(pane, event);
    if (number === (hovered?.number ?? null) && (number === null || hovered.pane === pane)) return;
    hovered = number === null ? null : {pane, number};
    if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
    waiting = true;
  };
  stage.addEventListener('pointermove', (event) => event.pointerType === 'mouse' && over(event));
  stage.addEventListener('pointerleave', over);
  stage.addEventListener('click', (event) => {
    if (event.target.closest('button, input')) return;
    const pane = paneAt(stage, event), number = numberAt(pane, event), place = placeIn(pane, event);
    if (!place || (number !== null && !pane.ids)) return;
    const segment = number === null ? {index: null, value: null} : {index: pane.ids[number], value: pane.names[number]};
    trigger('select', {...segment, at: [panes.indexOf(pane), ...place]});
  });
}

// ---------------------------------------------------------------- the page's elements

function newStage(figure) {
  const stage = make('div', 'stage', figure);
  stage.panes = [];
  follow(stage);
  return stage;
}

function layer(stage) {
  const box = make('div', 'layer', stage);
  const pane = {image: make('img', '', box, {draggable: false}), canvas: make('canvas', '', box)};
  pane.canvas.setAttribute('aria-hidden', 'true');
  stage.panes.push(pane);
  return pane;
}

function tools(stage, title) {
  const bar = make('div', 'tools', stage);
  const button = (path, label, act) => {
    const made = make('button', '', bar, {type: 'button', title: label, onclick: act});
    made.setAttribute('aria-label', label);
    made.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;
  };
  button('M12 4v11m-5-5 5 5 5-5M5 20h14', 'Save the picture', () => stage.panes.forEach((pane) => save(pane, title)));
  if (document.fullscreenEnabled) {
    button('M4 9V4h5m6 0h5v5m0 6v5h-5m-6 0H4v-5', 'Full screen', () =>
      document.fullscreenElement ? document.exitFullscreen() : stage.parentElement.requestFullscreen());
  }
}

function save(pane, name) {
  const {naturalWidth: width, naturalHeight: height} = pane.image, whole = new OffscreenCanvas(width, height);
  const context = whole.getContext('2d');
  context.drawImage(pane.image, 0, 0);
  if (pane.decodedLabels) context.drawImage(pane.canvas, 0, 0, width, height);
  whole.convertToBlob().then((blob) => {
    const link = Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob)});
    link.download = `${name()}_${pane.title.toLowerCase().replace(/[^a-z0-9]+/g, '_')}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

function divider(stage) {
  const input = make('input', 'divider', stage, {type: 'range', min: 0, max: 100, step: 1, value: 50});
  const place = () => {
    stage.style.setProperty('--divider', `${input.value}%`);
    input.setAttribute('aria-valuetext', `${stage.panes[0].title} on ${input.value} % of the width, then ${stage.panes[1].title}`);
  };
  input.oninput = place;
  make('div', 'line', stage);
  for (const side of ['left', 'right']) make('span', `side ${side}`, stage);
  return Object.assign(input, {place});
}

/** Elements for as many panes as there are; those that are there already stay, so that nothing flickers. */
function build(layout, count) {
  if (root.dataset.layout === layout && panes.length === count) return;
  root.replaceChildren();
  root.dataset.layout = layout;
  panes = [];
  const figures = layout === 'divider' ? 1 : count;
  for (let n = 0; n < figures; n++) {
    const figure = make('figure', '', root), caption = make('figcaption', '', figure), stage = newStage(figure);
    const layers = Array.from({length: layout === 'divider' ? 2 : 1}, () => layer(stage));
    if (layout === 'divider') stage.divider = divider(stage);
    const chip = make('div', 'chip', stage, {hidden: true});
    tools(stage, () => root.dataset.name);
    const below = make('p', '', figure);
    layers.forEach((pane) => Object.assign(pane, {figure, caption, stage, chip, below}));
    panes.push(...layers);
  }
}

async function show() {
  const mine = ++last, value = props.value;
  if (!value) {
    root.replaceChildren();
    root.dataset.layout = '';
    panes = [];
    return;
  }
  const ready = await Promise.all(value.panes.map(async (pane) => {
    const [decodedLabels, picture] = await Promise.all([labelsOf(pane), decoded(pane.picture.url)]);
    return {...pane, decodedLabels, source: picture.src, ratio: picture.naturalWidth / picture.naturalHeight};
  }));
  if (mine !== last) return;
  build(value.layout, ready.length);
  root.dataset.name = value.name;
  hovered = null;
  ready.forEach((pane, n) => {
    const into = Object.assign(panes[n], pane);
    Object.assign(into.image, {src: pane.source, alt: pane.alt});
    into.canvas.hidden = !pane.decodedLabels;
    if (value.layout === 'row') into.caption.textContent = pane.title;
    into.below.textContent = pane.note;
    into.stage.style.setProperty('--ratio', pane.ratio);
  });
  if (value.layout === 'divider') {
    const [left, right] = panes, {stage} = left;
    stage.divider.setAttribute('aria-label', `Divider: ${left.title} on the left, ${right.title} on the right`);
    stage.querySelector('.side.left').textContent = left.title;
    stage.querySelector('.side.right').textContent = right.title;
    stage.divider.place();
  }
  draw();
}

viewers.all.add(draw);
watch('value', show);
show();
