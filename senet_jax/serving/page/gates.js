// Gates as strips: a field for each channel, a strip for each block and photo.
const ROW = 128; // fields beside each other at most
const HINT = 'Point at a field, or move over the fields with the arrow keys, to see its gate.';
const $ = (selector) => document.querySelector(selector);
const element = (name, text = '') => Object.assign(document.createElement(name), { textContent: text });
const mix = (a, b, t) => a.map((x, i) => Math.round(x + (b[i] - x) * t));

export class GateView {
  constructor(root, means) {
    this.root = root;
    this.means = new Map(means?.map(({ block, values }) => [block, values]));
    this.photos = [[], []];
    this.inputs = Object.fromEntries([...root.querySelectorAll('[name=view]')].map((x) => [x.value, x]));
    root.addEventListener('change', () => this.draw());
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
    if (this.means.size) this.inputs.mean.checked = true;
  }

  // Takes the gates of a photo, `[{block, values}, …]`; none where it has no answer.
  show(place, gates) {
    this.photos[place] = gates;
    this.draw();
  }

  draw() {
    const present = [0, 1].filter((place) => this.photos[place].length);
    this.root.hidden = !present.length;
    if (!present.length) return;
    this.inputs.mean.parentElement.hidden = !this.means.size;
    this.inputs.difference.parentElement.hidden = present.length < 2;
    this.root.querySelector('fieldset').hidden = present.length < 2 && !this.means.size;
    if (present.length < 2 && this.inputs.difference.checked) this.inputs[this.means.size ? 'mean' : 'plain'].checked = true;
    const view = Object.keys(this.inputs).find((name) => this.inputs[name].checked);

    // For each block its strips: [what is drawn, of which photo].
    const rows = this.photos[present[0]].map(({ block, values }, i) => {
      const mean = this.means.get(block);
      const own = present.map((place) => this.photos[place][i].values);
      const less = (a, b) => a.map((x, c) => x - b[c]);
      const drawn = view === 'difference' ? [less(...own)] : view === 'mean' ? own.map((x) => less(x, mean)) : own;
      return { block, channels: values.length, own, mean, drawn };
    });
    const all = rows.flatMap(({ drawn }) => drawn.flat());
    const plain = view === 'plain', far = Math.max(0.01, ...all.map(Math.abs));
    const ends = plain ? [Math.min(0, ...all), Math.max(1, ...all)] : [-far, far];
    const paint = this.painter(plain, ends);
    this.scale(paint, ends, plain);
    $('#channel').value = HINT;

    let stage;
    $('#blocks').replaceChildren(...rows.flatMap((row) => {
      const [, found] = /^SE_(\d+)_/.exec(row.block) ?? [];
      const heading = found !== stage ? [element('h3', found ? `Stage ${found}` : 'Other blocks')] : [];
      stage = found;
      return [...heading, this.block(row, present, paint)];
    }));
  }

  painter(plain, [low, high]) {
    const style = getComputedStyle(this.root);
    const [closed, open, less, even, more] = ['closed', 'open', 'less', 'even', 'more'].map(
      (name) => style.getPropertyValue(`--${name}`).trim().split(' ').map(Number));
    return (x) => plain ? mix(closed, open, (x - low) / (high - low)) : mix(even, x < 0 ? less : more, Math.abs(x) / high);
  }

  scale(paint, [low, high], plain) {
    const [left, bar, right] = $('#scale').children;
    const steps = Array.from({ length: 9 }, (_, i) => `rgb(${paint(low + (high - low) * i / 8).join(' ')})`);
    bar.style.background = `linear-gradient(90deg, ${steps.join(', ')})`;
    left.textContent = plain ? `closed ${+low.toFixed(2)}` : `−${high.toFixed(2)} less`;
    right.textContent = plain ? `${+high.toFixed(2)} open` : `more +${high.toFixed(2)}`;
  }

  block({ block, channels, own, mean, drawn }, present, paint) {
    const root = element('div'), strips = element('div');
    root.className = 'block';
    root.append(element('p', `${block}, ${channels} channels`), strips);
    const marks = [], columns = Math.min(channels, ROW), lines = Math.ceil(channels / columns);
    const text = (c) => `${block}, channel ${c + 1}: ` + [
      ...own.map((values, i) => `${present.length > 1 ? `photo ${present[i] + 1} ` : ''}${values[c].toFixed(2)}`),
      ...(mean ? [`mean ${mean[c].toFixed(2)}`] : [])].join(', ');
    const point = (c) => {
      $('#channel').value = c === null ? HINT : text(c);
      for (const mark of marks) {
        mark.hidden = c === null;
        Object.assign(mark.style, {
          left: `${100 * (c % columns) / columns}%`, top: `${100 * Math.floor(c / columns) / lines}%`,
          width: `${100 / columns}%`, height: `${100 / lines}%` });
      }
    };
    drawn.forEach((values, i) => {
      const strip = element('div'), mark = element('i'), canvas = element('canvas');
      strip.className = 'strip';
      strip.dataset.photo = drawn.length > 1 ? present[i] + 1 : '';
      marks.push(Object.assign(mark, { hidden: true }));
      Object.assign(canvas, { width: columns, height: lines, tabIndex: 0, role: 'slider' });
      canvas.style.height = lines > 1 ? `${Math.max(0.4 * lines, 1.2)}rem` : '1.2rem';
      const image = new ImageData(columns, lines);
      values.forEach((x, c) => image.data.set([...paint(x), 255], 4 * c));
      canvas.getContext('2d').putImageData(image, 0, 0);
      let at = 0;
      const move = (c) => {
        at = Math.min(Math.max(c, 0), channels - 1);
        canvas.ariaValueNow = at + 1;
        canvas.ariaValueText = text(at);
        return at;
      };
      move(0);
      Object.assign(canvas, { ariaValueMin: 1, ariaValueMax: channels,
        ariaLabel: `Gates of ${block}${drawn.length > 1 ? `, photo ${present[i] + 1}` : ''}` });
      canvas.addEventListener('pointermove', ({ offsetX, offsetY }) => point(move(
        Math.floor(offsetX / canvas.clientWidth * columns) + columns * Math.floor(offsetY / canvas.clientHeight * lines))));
      canvas.addEventListener('pointerleave', () => point(document.activeElement === canvas ? at : null));
      canvas.addEventListener('focus', () => point(at));
      canvas.addEventListener('blur', () => point(null));
      canvas.addEventListener('keydown', (event) => {
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -channels, End: channels }[event.key];
        if (!step) return;
        event.preventDefault();
        point(move(at + step));
      });
      strip.append(canvas, mark);
      strips.append(strip);
    });
    return root;
  }
}
