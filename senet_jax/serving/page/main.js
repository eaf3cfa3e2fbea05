// The page: two photos, and what the network makes of them.
import { ask, need } from './ask.js';
import { GateView } from './gates.js';

const $ = (selector, root = document) => root.querySelector(selector);
const photos = [];
let model, gateView;
let filming; // what turns the camera off: the page has one, which is on for one photo

class Photo {
  constructor(place) {
    this.place = place;
    this.root = $('#photo').content.cloneNode(true).firstElementChild;
    $('h2', this.root).textContent = `Photo ${place + 1}`;
    $('.hint', this.root).textContent = `Drop ${place ? 'a second photo here, to compare' : 'a photo here, or paste one'}`;
    $('#photos').append(this.root);
    $('img', this.root).addEventListener('error', ({ target }) => { target.hidden = true; });
    for (const input of this.root.querySelectorAll('input')) {
      input.addEventListener('change', () => { this.take(input.files[0]); input.value = ''; });
    }
    $('.camera', this.root).addEventListener('click', () => this.camera());
    $('.off', this.root).addEventListener('click', () => filming.abort());
    for (const [event, over] of [['dragover', true], ['dragleave', false], ['drop', false]]) {
      this.root.addEventListener(event, () => this.root.classList.toggle('over', over));
    }
  }

  get full() { return this.root.classList.contains('full'); }

  say(text, how = '') {
    const status = $('.status', this.root);
    status.textContent = text;
    status.className = `status ${how}`;
  }

  // Takes a photo in the place of what is here, or on its way.
  async take(file) {
    if (!file) return;
    filming?.abort();
    this.asked?.abort();
    const { signal } = this.asked = new AbortController();
    const image = $('img', this.root);
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.alt = `Photo ${this.place + 1}`;
    image.hidden = false;
    $('.hint', this.root).textContent = 'Browsers do not show this kind of file';
    this.root.classList.add('full', 'busy');
    $('.button span', this.root).textContent = 'Another photo';
    $('#photos').classList.toggle('both', photos.every((photo) => photo.full));
    this.say('The network looks at it …');
    let answer = {}, wrong = '';
    try {
      answer = await classify(file, signal);
    } catch (error) {
      wrong = error.message;
    }
    if (signal.aborted) return; // another photo has come
    this.root.classList.remove('busy');
    this.say(wrong, 'bad');
    this.list(answer.predictions ?? []);
    gateView.show(this.place, answer.gates ?? []);
  }

  list(predictions) {
    $('ol', this.root).replaceChildren(...predictions.map(({ name, probability }) => {
      const row = document.createElement('li');
      row.innerHTML = '<div><span></span><span></span></div><div class="bar"><i></i></div>';
      const [first, second] = row.querySelectorAll('span');
      first.textContent = name;
      second.textContent = probability < 0.0005 ? '< 0.1 %' : `${(100 * probability).toFixed(1)} %`;
      $('i', row).style.width = `${100 * probability}%`;
      return row;
    }));
    if (predictions.length) {
      const { name, probability } = predictions[0];
      this.say(`${name}, ${(100 * probability).toFixed(0)} percent`, 'hidden'); // is read out
    }
  }

  // Shows what the camera sees, and takes it at the second click; phones without leave ask their own.
  async camera() {
    const video = $('video', this.root), { classList } = this.root;
    if (!navigator.mediaDevices) return $('.phone', this.root).click();
    if (classList.contains('live')) return this.shoot();
    if (classList.contains('filming')) return; // the browser still asks whether it may
    filming?.abort();
    const { signal } = filming = new AbortController();
    signal.addEventListener('abort', () => this.dark());
    classList.add('filming');
    if (!classList.contains('busy')) this.say('');
    const end = (why) => {
      if (signal.aborted) return;
      filming.abort();
      this.say(why, 'bad');
    };
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      const [track] = stream.getTracks();
      if (signal.aborted) return track.stop();
      signal.addEventListener('abort', () => track.stop());
      track.addEventListener('ended', () => end('The camera has gone.'));
      video.srcObject = stream;
      video.hidden = false;
      await video.play();
    } catch (error) {
      end(`There is no camera to use: ${error.message}`);
    }
    if (signal.aborted) return;
    classList.add('live');
    $('.camera', this.root).textContent = 'Take it';
  }

  shoot() {
    const { signal } = filming, video = $('video', this.root), canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext('2d').drawImage(video, 0, 0);
    canvas.toBlob((blob) => { if (!signal.aborted) this.take(blob); }, 'image/jpeg', 0.95);
  }

  dark() {
    const video = $('video', this.root);
    video.srcObject = null;
    video.hidden = true;
    this.root.classList.remove('filming', 'live');
    $('.camera', this.root).textContent = 'Camera';
  }
}

async function classify(file, signal) {
  if (file.size > model.max_bytes) {
    throw new Error(`The photo is larger than ${+(model.max_bytes / 2 ** 20).toPrecision(3)} MB; choose a smaller one.`);
  }
  const body = await file.arrayBuffer().catch(() => { // a folder, or gone meanwhile
    throw new Error('The file cannot be read; choose another.');
  });
  const headers = { 'Content-Type': 'application/octet-stream' };
  // The server gives up first, and says why.
  return ask('/api/predict?gates=true', model.max_seconds + 5, { method: 'POST', body, headers, signal });
}

function describe() {
  const { classes, preprocessing, parameters, name, network } = model;
  const few = classes.length <= 12;
  document.title = $('#name').textContent = name;
  $('#about').textContent = `Show it a photo. ${network} with ${parameters.toLocaleString('en')} parameters tells `
    + `${classes.length} classes apart${few ? `: ${classes.join(', ')}` : ''}. It sees the `
    + `${preprocessing.keep_aspect ? 'middle' : 'whole'} of a photo, at ${preprocessing.width} × ${preprocessing.height} pixels.`;
  $('#all').hidden = few;
  $('#all p').textContent = classes.join(', ');
}

// What is dropped beside a photo, or pasted, goes to the one that is in use or empty.
const given = (data) => [...data.files].find((file) => file.type.startsWith('image/')) ?? data.files[0];
const wanted = (target) => photos.find((photo) => photo.root.contains(target))
  ?? photos.find((photo) => !photo.full) ?? photos[0];
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  const photo = wanted(event.target), file = given(event.dataTransfer);
  if (file) photo?.take(file);
  else photo?.say('That is no file; save it first, and drop the file.', 'bad');
});
document.addEventListener('paste', (event) => wanted(document.activeElement)?.take(given(event.clipboardData)));

model = await need('/api/model');
gateView = new GateView($('#gates'), model.mean_gates);
photos.push(...[0, 1].map((place) => new Photo(place)));
describe();
