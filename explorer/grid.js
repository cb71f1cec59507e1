// Draws what explorer/grid.py sends. A stroke paints cells, or erases them if it begins on a chosen one; then the value's
// `cells` say which ones are chosen, as "row,column row,column ...".

const canvas = element.querySelector('canvas'), nothing = element.querySelector('p');
const context = canvas.getContext('2d');
const grid = ((window.emerdiff ??= {}).grid = {
  cells: '', brush: 3, strength: 1,
  look(changes) {
    Object.assign(this, changes);
    chosen = new Set([...this.cells.matchAll(/(\d+)\s*,\s*(\d+)/g)].map(([, row, column]) => `${+row},${+column}`));
    draw();
  },
});
let chosen = new Set(); // "row,column"
let before = chosen; // the stroke that goes on
let picture = null; // once it is decoded
let last = 0; // the latest value
let under = null; // [row, column] under the pointer
let stroke = null; // whether the stroke that goes on paints, or erases

const inside = (row, column) => row >= 0 && column >= 0 && row < props.value.rows && column < props.value.columns;

/** The cells of the brush with its middle at [row, column]. */
function brushed([row, column]) {
  const reach = grid.brush >> 1, cells = [];
  for (let y = row - reach; y <= row + reach; y++) {
    for (let x = column - reach; x <= column + reach; x++) if (inside(y, x)) cells.push([y, x]);
  }
  return cells;
}

const box = ([row, column]) => {
  const [height, width] = [canvas.height / props.value.rows, canvas.width / props.value.columns];
  return [column * width, row * height, width, height];
};

/** White on black, which shows on any colour, around the cells for which `has(row, column)`. */
function frame(cells, has, dash = []) {
  const path = new Path2D();
  for (const [row, column] of cells) {
    const [x, y, width, height] = box([row, column]);
    const sides = [[-1, 0, x, y, x + width, y], [1, 0, x, y + height, x + width, y + height],
      [0, -1, x, y, x, y + height], [0, 1, x + width, y, x + width, y + height]];
    for (const [down, right, ...line] of sides) {
      if (has(row + down, column + right)) continue;
      path.moveTo(line[0], line[1]);
      path.lineTo(line[2], line[3]);
    }
  }
  const unit = Math.max(1, canvas.width / 320);
  context.lineCap = 'square';
  for (const [colour, width, dashes] of [['#000', 4, []], ['#fff', 2, dash]]) {
    Object.assign(context, {strokeStyle: colour, lineWidth: width * unit});
    context.setLineDash(dashes.map((one) => one * unit));
    context.stroke(path);
  }
}

function draw() {
  canvas.hidden = !picture;
  nothing.hidden = !!picture;
  if (!picture) return;
  const {rows, columns} = props.value, {width, height} = canvas;
  context.globalAlpha = 1;
  context.drawImage(picture, 0, 0, width, height);
  const cells = [...chosen].map((cell) => cell.split(',').map(Number)).filter(([row, column]) => inside(row, column));
  if (cells.length) {
    context.fillStyle = 'rgb(0 0 0 / .6)';
    context.fillRect(0, 0, width, height);
  }
  for (const cell of cells) {
    const [x, y, w, h] = box(cell);
    const [left, top] = [x * picture.naturalWidth / width, y * picture.naturalHeight / height];
    context.drawImage(picture, left, top, picture.naturalWidth / columns, picture.naturalHeight / rows, x, y, w, h);
    context.fillStyle = grid.strength < 0 ? 'rgb(63 144 218 / .45)' : 'rgb(255 169 14 / .45)';
    context.fillRect(x, y, w, h);
  }
  context.strokeStyle = 'rgb(255 255 255 / .3)';
  context.lineWidth = 1;
  context.setLineDash([]);
  context.beginPath();
  for (let row = 1; row < rows; row++) context.rect(-9, row * height / rows, width + 18, 2 * height);
  for (let column = 1; column < columns; column++) context.rect(column * width / columns, -9, 2 * width, height + 18);
  context.stroke();
  frame(cells, (row, column) => chosen.has(`${row},${column}`));
  if (under) {
    const brush = brushed(under), inBrush = new Set(brush.map(String));
    frame(brush, (row, column) => inBrush.has(`${row},${column}`), [4, 4]);
  }
}

function cellAt(event) {
  const {x, y, width, height} = canvas.getBoundingClientRect();
  const cell = [
    Math.floor((event.clientY - y) / height * props.value.rows),
    Math.floor((event.clientX - x) / width * props.value.columns),
  ];
  return inside(...cell) ? cell : null;
}

/** From where the pointer was to where it is, however fast it went. */
function paint(from, to) {
  const steps = Math.max(1, Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
  for (let step = 0; step <= steps; step++) {
    const middle = [0, 1].map((axis) => Math.round(from[axis] + (to[axis] - from[axis]) * step / steps));
    for (const cell of brushed(middle)) chosen[stroke ? 'add' : 'delete'](String(cell));
  }
}

canvas.addEventListener('pointerdown', (event) => {
  const at = event.button === 0 ? cellAt(event) : null;
  if (!at) return;
  canvas.setPointerCapture(event.pointerId);
  before = new Set(chosen);
  stroke = !chosen.has(String(at));
  paint(at, (under = at));
  draw();
});
canvas.addEventListener('pointermove', (event) => {
  const at = cellAt(event);
  if (String(at) === String(under)) return;
  if (stroke !== null && at) paint(under ?? at, at);
  under = at;
  draw();
});
canvas.addEventListener('pointerleave', () => {
  under = null;
  draw();
});
canvas.addEventListener('pointerup', () => {
  if (stroke === null) return;
  stroke = null;
  const cells = [...chosen].map((cell) => cell.split(',').map(Number)).sort(([a, b], [c, d]) => a - c || b - d);
  props.value = {...props.value, cells: cells.join(' ')};
  trigger('input');
});
canvas.addEventListener('pointercancel', () => { // the finger scrolls the page
  if (stroke === null) return;
  chosen = before;
  stroke = under = null;
  draw();
});

async function show() {
  const mine = ++last, value = props.value;
  if (value?.picture) {
    const image = new Image();
    image.src = value.picture;
    await image.decode();
    if (mine !== last) return;
    picture = image;
    Object.assign(canvas, {width: image.naturalWidth, height: image.naturalHeight});
  } else {
    picture = null;
  }
  under = stroke = null;
  grid.look({cells: value?.cells ?? ''}); // a tab is built when it is opened first, after the text has changed
}

watch('value', show);
show();
