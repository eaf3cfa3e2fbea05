// The page: two photos, and what the network makes of them.
import { GateView } from './gates.js';

const $ = (selector, root = document) => root.querySelector(selector);
const model = await (await fetch('/api/model')).json();
const gateView = new GateView($('#gates'), model.mean_gates);

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

  async take(file) {
    if (!file) return;
    this.stop();
    this.asked?.abort();
    const asked = this.asked = new AbortController();
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
    let answer;
    try {
      answer = await ask(file, asked.signal);
    } catch (error) {
      if (asked.signal.aborted) return; // another photo has come
      answer = { error: error.message };
    }
    this.root.classList.remove('busy');
    this.say(answer.error ?? '', 'bad');
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
    const video = $('video', this.root), button = $('.camera', this.root);
    if (!navigator.mediaDevices) return $('.phone', this.root).click();
    if (!this.stream) {
      try {
        this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      } catch (error) {
        return this.say(`There is no camera to use: ${error.message}`, 'bad');
      }
      video.srcObject = this.stream;
      video.hidden = false;
      this.root.classList.add('live');
      button.textContent = 'Take it';
      return video.play();
    }
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext('2d').drawImage(video, 0, 0);
    canvas.toBlob((blob) => this.take(blob), 'image/jpeg', 0.95);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    $('video', this.root).hidden = true;
    this.root.classList.remove('live');
    $('.camera', this.root).textContent = 'Camera';
  }
}

async function ask(file, signal) {
  if (file.size > model.max_bytes) {
    return { error: `The photo is larger than ${(model.max_bytes / 2 ** 20).toFixed(0)} MB.` };
  }
  const headers = { 'Content-Type': 'application/octet-stream' };
  const response = await fetch('/api/predict?gates=true', { method: 'POST', body: file, headers, signal });
  return response.json();
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

const photos = [0, 1].map((place) => new Photo(place));
describe();

// What is dropped beside a photo, or pasted, goes to the one that is in use or empty.
const given = (data) => [...data.files].find((file) => file.type.startsWith('image/')) ?? data.files[0];
const wanted = (target) => photos.find((photo) => photo.root.contains(target))
  ?? photos.find((photo) => !photo.full) ?? photos[0];
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  wanted(event.target).take(given(event.dataTransfer));
});
document.addEventListener('paste', (event) => wanted(document.activeElement).take(given(event.clipboardData)));
